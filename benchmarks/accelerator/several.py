"""Parts on sharing a device: eight inverters at once in one process, and several processes by fractions."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional

from benchmarks.accelerator.context import Context, Record
from benchmarks.rows import NETWORKS, inverter_parts, training
from orchestrator import config
from orchestrator.training.objectives import reconstruction
from orchestrator.training.optimizers import new_optimizer
from orchestrator.training.pairs import Pairs, as_unit

MEMBERS = 8
STEPS = 3  # after which the ways' losses are compared
PAYS = 1.5
"""Ratio from which a launcher would stack trials."""


def members(context: Context, width: float, batch: int) -> list[tuple[nn.Module, Pairs]]:
    """Build eight digit inverters that differ in m, seed or c, with a batch each."""
    place = replace(context.place("float32"), width=width)
    made = []
    for number in range(MEMBERS):
        m, seed, offset = (10, 5, 3, 1)[number % 4], number // 4, 50.0 if number < 6 else 10.0
        network, pairs = inverter_parts(
            NETWORKS["digit-inverter"], place, batch, m=m, seed=seed, offset=offset
        )
        for module in network.modules():
            if isinstance(module, nn.ConvTranspose2d):
                module.__class__ = nn.ConvTranspose2d  # torch's own operation, which can be stacked
        made.append((network.to(context.device), pairs.on(context.device)))
    return made


Way = Callable[[], list[Tensor]]
"""One step of all members; their losses."""


def one_by_one(made: list[tuple[nn.Module, Pairs]], context: Context) -> Way:
    """Return a step of one member after the other."""
    steps = [_step(*one, context) for one in made]
    return lambda: [step() for step in steps]


def in_streams(made: list[tuple[nn.Module, Pairs]], context: Context) -> Way:
    """Return a step of all members, each in a stream of its own."""
    streams = [torch.cuda.Stream(context.device) for _ in made]
    steps = [_step(*one, context) for one in made]

    def call() -> list[Tensor]:
        now, losses = torch.cuda.current_stream(context.device), []
        for stream, step in zip(streams, steps, strict=True):
            stream.wait_stream(now)
            with torch.cuda.stream(stream):
                losses.append(step())
        for stream in streams:
            now.wait_stream(stream)
        return losses

    return call


def _step(network: nn.Module, pairs: Pairs, context: Context) -> Callable[[], Tensor]:
    ready = training(network, pairs, reconstruction(), config.Recipe(), context.place("float32"))
    return lambda: ready.call()["loss"]


def stacked(made: list[tuple[nn.Module, Pairs]], context: Context) -> Way:
    """Return a step of all members as one network with one more dimension: torch.func turns their
    convolutions into grouped ones, and one optimiser has all weights."""
    networks = [network.train() for network, _ in made]
    weights, buffers = stack_module_state(networks)
    optimizer = new_optimizer(list(weights.values()), config.Recipe())
    inputs = torch.stack([pairs.inputs[:] for _, pairs in made])
    images = torch.stack([as_unit(pairs.outputs[:]) for _, pairs in made])
    model: Any = networks[0]

    def loss_of(own: Any, kept: Any, given: Tensor, wanted: Tensor) -> Tensor:
        return functional.mse_loss(functional_call(model, (own, kept), (given,)), wanted)

    def call() -> list[Tensor]:
        losses = vmap(loss_of)(weights, buffers, inputs, images)
        optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()
        optimizer.step()
        return list(losses.detach())

    return call


def inverters(context: Context) -> Iterator[Record]:
    """Yield steps a second of eight digit inverters at once, full and narrow, by each way, as a ratio to one
    after the other, and how far their losses are from those."""
    ways = {"one after the other": one_by_one, "streams": in_streams, "stacked": stacked}
    widths = {"tiny": 0.02} if context.is_tiny else {"1": 1.0, "1/16": 0.0625}
    batch = 8 if context.is_tiny else 128
    for label, width in widths.items():
        first: tuple[float, Tensor] | None = None
        for way, build in context.in_time(ways, 4.0):
            if way == "streams" and context.device.type != "cuda":
                yield {"width": label, "way": way, "note": "skipped: streams are CUDA's"}
                continue
            call = build(members(context, width, batch), context)
            losses = torch.stack([torch.stack(call()).cpu() for _ in range(STEPS)])
            rate = MEMBERS / context.seconds(call)
            first = first or (rate, losses)
            ratio, apart = rate / first[0], ((losses - first[1]) / first[1]).abs().max().item()
            pays = "yes" if ratio >= PAYS else "no"
            yield {
                "width": label,
                "way": way,
                "steps/s": rate,
                "ratio": ratio,
                "losses apart": apart,
                "pays": pays,
            }


def fractions(context: Context) -> Iterator[Record]:
    """Yield images a second of digit inverters in 1, 2 and 4 processes that share the device."""
    seconds = 0.3 if context.is_tiny else 4.0
    alone = 0.0
    for number in (1, 2) if context.is_tiny else (1, 2, 4):
        if context.left < seconds + (2.0 if context.is_tiny else 15.0):
            return
        rate = _together(number, seconds, context)
        alone = alone or rate
        yield {"processes": number, "images/s in all": rate, "ratio to one": rate / alone}


def _together(number: int, seconds: float, context: Context) -> float:
    """Return the images a second of processes that begin together, in all."""
    given = [str(context.device), str(seconds), str(context.width), "8" if context.is_tiny else "128"]
    command = [sys.executable, "-m", "benchmarks.accelerator.share", *given]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(number)
    ]
    try:
        for process in running:  # each is ready before any begins
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in running:
            assert process.stdin is not None
            process.stdin.write("begin\n")
            process.stdin.flush()
        outputs = [process.communicate()[0] for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    return sum(float(output) for output in outputs)

"""Parts on data: images a second by where they are kept, and waits of the host within an epoch."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.accelerator.context import Context, Record
from benchmarks.rows import NETWORKS, SEED, Place, adversaries, new_classifier, pictures
from orchestrator import config
from orchestrator.attacks import prior
from orchestrator.training.loop import Objective, fit
from orchestrator.training.objectives import classification
from orchestrator.training.pairs import Pairs, as_unit
from orchestrator.training.world import World

BATCH = 128


def path(context: Context) -> Iterator[Record]:
    """Yield images a second of ways to make a batch of 64x64 in float32 on the device."""
    number, batch = (256, 16) if context.is_tiny else (20_000, BATCH)
    images = pictures(number, 1, 64)
    placed = images.to(context.device)
    index = torch.randperm(number)[:batch]
    placed_index = index.to(context.device)
    whole = as_unit(images)
    ways: dict[str, Callable[[], Tensor]] = {
        "uint8 on the device": lambda: as_unit(placed[placed_index]),
        "uint8 on the host": lambda: as_unit(images[index].to(context.device)),
        "float32 on the host": lambda: whole[index].to(context.device),
    }
    if context.device.type == "cuda":
        ways["uint8 on the host, pinned"] = lambda: as_unit(
            images[index].pin_memory().to(context.device, non_blocking=True)
        )
    for way, call in context.in_time(ways, 1.0):
        yield {"images": way, "batch": batch, "images/s": batch / context.seconds(call)}


class Watched:
    """A step of `fit` behind which CUDA's warnings of waits are switched off again, see `waits`."""

    def __init__(self, step: Any, switch: Callable[[bool], None]) -> None:
        self._step, self._switch = step, switch

    def train(self, inputs: Tensor, outputs: Tensor) -> dict[str, Tensor]:
        """Take a step."""
        losses: dict[str, Tensor] = self._step.train(inputs, outputs)
        self._switch(False)
        return losses

    def __getattr__(self, name: str) -> Any:
        return getattr(self._step, name)


class Training(NamedTuple):
    """What `fit` is given, but for the world."""

    model: Any
    pairs: Pairs
    objective: Objective
    recipe: config.Recipe


def watched_fit(training: Training, world: World, switch: Callable[[bool], None]) -> None:
    """Train by `fit`; call `switch` with True before each batch is gathered, with False after its step."""

    def polled() -> bool:  # `fit` asks before each batch
        switch(True)
        return False

    made = training.objective.step
    watched = replace(training.objective, step=lambda *parts: Watched(made(*parts), switch))
    world = replace(world, is_preempted=polled)
    fit(training.model, training.pairs, watched, training.recipe, SEED, world)


def trainings(place: Place, side: int, number: int) -> dict[str, Training]:
    """Return trainings of two epochs by name."""
    recipe = config.Recipe(epochs=2, batch_size=16)
    labelled = Pairs(pictures(number, 1, side), torch.arange(number) % 10)
    spec, networks = adversaries(NETWORKS["hinge-prior"], place)
    public = Pairs(pictures(number, 3, 64), torch.zeros(number))

    def labelling(own: config.Recipe) -> Training:
        sizes = replace(NETWORKS["digit-classifier"], side=side)
        return Training(new_classifier(sizes, place), labelled, classification(), own)

    return {
        "classifier": labelling(recipe),
        "classifier, flipped": labelling(recipe.but(augmentation="flip")),
        "classifier, cropped and jittered": labelling(recipe.but(augmentation="crop-jitter-flip")),
        "hinge prior": Training(
            networks, public, prior.objective(spec), spec.recipe.but(epochs=2, batch_size=16)
        ),
    }


def waits(context: Context) -> Iterator[Record]:
    """Yield how often the host waits for the device between the first gathering of a batch and the last step
    of an epoch, by CUDA's own warnings, and where."""
    if context.device.type != "cuda":
        yield {"training": "all", "note": "no waits: the CPU is the device"}
        return

    def switch(is_on: bool) -> None:
        torch.cuda.set_sync_debug_mode("warn" if is_on else "default")

    for name, training in context.in_time(trainings(context.place("bfloat16"), 32, 320), 3.0):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                watched_fit(training, context.place("bfloat16").world, switch)
            finally:
                switch(False)
        # torch announces the mode itself once.
        waited = [
            one for one in caught if "synchroniz" in str(one.message) and "prototype" not in str(one.message)
        ]
        places = Counter(f"{one.filename.rpartition('/')[2]}:{one.lineno}" for one in waited)
        yield {"training": name, "waits in an epoch": len(waited) / 2, "places": dict(places.most_common(5))}

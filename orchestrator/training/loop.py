"""One epoch loop for every network of the project: targets, pretraining, judges and inverters.

`fit` takes a `World` and works the same in one process and on N data-parallel workers; it knows nothing of
Ray. The data order and the dropout masks depend on (seed, epoch, rank) only, so a fit that resumes from a
checkpoint, between two epochs or in the middle of one, ends with the same bytes as one that was never
interrupted (same numeric profile).
"""

import logging
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from orchestrator.config import Recipe
from orchestrator.training.augmentation import augmentation
from orchestrator.training.checkpoint import pack, unpack
from orchestrator.training.objectives import Objective, as_unit
from orchestrator.training.pairs import Pairs, hold_out
from orchestrator.training.seeds import derive_seed
from orchestrator.training.world import (
    CANCEL,
    CONTINUE,
    DIVERGE,
    PREEMPT,
    SAVE,
    Cancelled,
    Diverged,
    Preempted,
    World,
)

logger = logging.getLogger(__name__)

EVALUATION_BATCH = 512
AMI_BETAS = (0.5, 0.999)  # released code of Yang, Chang and Liang, for every network
POLL_BATCHES = 16  # several workers must stop at the same batch: they poll rank 0 this often


@dataclass(frozen=True)
class Fitted:
    """How a fit went; the model itself holds the best epoch's weights."""

    best_epoch: int  # from 1
    best: dict[str, float]  # validation means of that epoch
    curves: dict[str, list[float]]  # name -> one value for each epoch
    images_seen: int
    snapshots: dict[int, dict[str, Tensor]]  # epoch -> the model's state after it
    held_out: tuple[int, ...]  # positions of the pairs that chose the epoch; none if others did


class _Loss(nn.Module):
    """Model and loss as one module, so that every parameter's gradient is averaged over the workers."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, inputs: Tensor, wanted: Tensor) -> Tensor:
        return self.objective.loss(self.model, inputs, wanted)


@torch.inference_mode()
def predict(model: nn.Module, inputs: Tensor, device: torch.device) -> Tensor:
    """Return the model's float32 outputs on the CPU, in evaluation mode, batch by batch."""
    model.eval()
    batches = inputs.split(EVALUATION_BATCH)
    return torch.cat([model(as_unit(batch.to(device))).float().cpu() for batch in batches])


def fit(  # noqa: PLR0913 - one for each thing that a training depends on
    model: nn.Module,
    pairs: Pairs,
    objective: Objective,
    recipe: Recipe,
    seed: int,
    world: World,
    chosen_on: Pairs | None = None,
    snapshots: Collection[int] = (),
) -> Fitted:
    """Train for `recipe.epochs`, leave the best epoch in `model`; `Cancelled` when told to stop.

    The best one is chosen on a held-out share of the pairs, or on `chosen_on`; then all pairs are trained on.
    The state after each epoch of `snapshots` is returned as well.
    """
    training, validation, held_out = pairs, chosen_on, torch.empty(0, dtype=torch.int64)
    if validation is None:
        kept, held_out = hold_out(len(pairs), recipe.validation_fraction, seed)
        training, validation = pairs.at(kept), pairs.at(held_out)
    if len(training) < 2 * world.size:
        raise ValueError(
            f"{len(training)} images are left to train on {world.size} workers after holding out "
            f"{len(validation)} of {len(pairs)}; at least {2 * world.size} are needed: "
            "give more images or lower recipe.validation_fraction."
        )
    model.to(world.device)
    model.to(memory_format=torch.channels_last)
    run = _Run(model, world.wrap(_Loss(objective.wrap(model), objective)), objective, recipe, seed, world)
    run.restore()
    _train(run, training, validation, snapshots)
    if world.rank == 0:
        model.load_state_dict(run.best_state)
    images_seen = recipe.epochs * len(training)
    chose = tuple(held_out.tolist())
    return Fitted(run.best_epoch, run.best, run.curves, images_seen, run.snapshots, chose)


def _train(run: "_Run", training: Pairs, validation: Pairs, snapshots: Collection[int]) -> None:
    """Go through the epochs that are left."""
    world, epochs = run.world, run.recipe.epochs
    for epoch in range(run.epoch + 1, epochs + 1):
        run.objective.begins(epoch, epochs)
        train_loss, reason, verdict = run.train_epoch(epoch, training), "", CONTINUE
        if world.rank == 0:
            means = run.validate(validation)
            reason = run.tally.fault(f"epoch {epoch} of {epochs}", means)
            if not reason:
                run.remember(epoch, train_loss, means, is_kept=epoch in snapshots)
                metrics = {"epoch": epoch, "epochs": epochs, "train_loss": train_loss, **means}
                verdict = CONTINUE if world.report(metrics) else CANCEL
                if run.is_time_to_save() and epoch < epochs:
                    run.save()
        verdict = world.agree(DIVERGE if reason else verdict)
        if verdict == DIVERGE:
            raise Diverged(reason or f"the loss diverged in epoch {epoch} of {epochs}")
        if verdict == CANCEL:
            raise Cancelled(f"stopped after epoch {epoch} of {epochs}")
        logger.info("event=epoch epoch=%d of=%d loss=%.6g", epoch, epochs, train_loss)


class _Tally:
    """The losses of an epoch so far; they stay on the device, so that no step waits for a number."""

    def __init__(self, total: Tensor, num_batches: int = 0) -> None:
        self.total, self.num_batches = total, num_batches
        self._losses: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        self.total = self.total + loss
        self.num_batches += 1
        self._losses.append(loss)

    def mean(self) -> float:
        return self.total.item() / self.num_batches

    def fault(self, where: str, means: Mapping[str, float]) -> str:
        """Return in words where a loss stopped being a finite number; empty if all are finite."""
        way_out = "lower recipe.learning_rate, or look for images or weights that are out of range"
        if not math.isfinite(self.total.item()):
            bad = [number for number, loss in enumerate(self._losses) if not math.isfinite(loss.item())]
            place = self.num_batches - len(self._losses) + (bad[0] if bad else 0) + 1
            value = self._losses[bad[0]].item() if bad else self.total.item()
            return f"the training loss is {value} in {where}, batch {place} of {self.num_batches}; {way_out}."
        for name, value in means.items():
            if not math.isfinite(value):
                return f"{name} is {value} after {where}; {way_out}."
        return ""


@dataclass(frozen=True)
class _Midway:
    """Where an epoch was left: after so many batches, with these generators."""

    num_batches: int
    total: Tensor
    generators: dict[str, Tensor]  # kind -> (workers, bytes) uint8


class _Run:
    """The state of one fit between epochs, and its checkpoint."""

    def __init__(
        self,
        model: nn.Module,
        wrapped: nn.Module,
        objective: Objective,
        recipe: Recipe,
        seed: int,
        world: World,
    ) -> None:
        self.model, self.wrapped, self.objective = model, wrapped, objective
        self.recipe, self.seed, self.world = recipe, seed, world
        self.trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = objective.steps_by(new_optimizer(self.trainable, recipe), recipe.batch_size)
        self.augment = augmentation(recipe.augmentation)
        self.epoch = self.best_epoch = 0
        self.best: dict[str, float] = {}
        self.best_state: dict[str, Tensor] = {}
        self.snapshots: dict[int, dict[str, Tensor]] = {}
        self.curves: dict[str, list[float]] = {}
        self.tally = _Tally(torch.zeros(()))
        self.midway: _Midway | None = None  # of the epoch after `epoch`, when a checkpoint holds it
        self.last_save = time.monotonic()

    def train_epoch(self, epoch: int, training: Pairs) -> float:
        """Take one pass in the order of (seed, epoch); return the mean loss of this worker's batches."""
        self.wrapped.train()
        device = self.world.device
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, epoch)
        with self._seeded("epoch", epoch, self.world.rank):
            self.tally = self._begun()
            for index in islice(self._batches(epoch, len(training)), self.tally.num_batches, None):
                self._pause(epoch)
                inputs, wanted = training.batch(index, device)
                inputs = self.augment(inputs)
                with torch.autocast(device.type, torch.bfloat16, enabled=self.world.precision == "bfloat16"):
                    loss = self.wrapped(inputs, wanted)
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self.optimizer.step()
                self.tally.add(loss.detach())
        return self.tally.mean()

    def _begun(self) -> _Tally:
        """Return an empty tally, or that of an epoch which was left midway, with its generators set."""
        midway, self.midway = self.midway, None
        if midway is None:
            return _Tally(torch.zeros((), device=self.world.device))
        mine = {kind: states[self.world.rank].clone() for kind, states in midway.generators.items()}
        torch.set_rng_state(mine["cpu"])  # a clone: torch reads from the start of the storage
        if "cuda" in mine:
            torch.cuda.set_rng_state(mine["cuda"], self.world.device)
        return _Tally(midway.total.to(self.world.device), midway.num_batches)

    def _pause(self, epoch: int) -> None:
        """Between two batches: save when it is time to, save and raise `Preempted` when asked to end."""
        world = self.world
        if world.size > 1 and self.tally.num_batches % POLL_BATCHES:
            return
        verdict = CONTINUE
        if world.rank == 0:
            is_due = world.checkpoint_seconds > 0 and self.is_time_to_save()
            verdict = PREEMPT if world.is_preempted() else SAVE if is_due else CONTINUE
        verdict = world.agree(verdict)
        if verdict == CONTINUE:
            return
        generators = {"cpu": world.gather(torch.get_rng_state()[None])}
        if world.device.type == "cuda":
            generators["cuda"] = world.gather(torch.cuda.get_rng_state(world.device)[None])
        if world.rank == 0 and torch.isfinite(self.tally.total):
            self.save(_Midway(self.tally.num_batches, self.tally.total, generators))
        if world.agree(verdict) == PREEMPT:  # asked again, so that no rank is gone before the state is saved
            raise Preempted(
                f"preempted in epoch {epoch} of {self.recipe.epochs}, {self.tally.num_batches} batches done"
            )

    def is_time_to_save(self) -> bool:
        """Return whether the last checkpoint is old enough."""
        return time.monotonic() - self.last_save >= self.world.checkpoint_seconds

    @contextmanager
    def _seeded(self, *what: object) -> Iterator[None]:
        """Meanwhile draw from generators that depend on the fit's seed and on what is done."""
        device = self.world.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(derive_seed(*what[:1], self.seed, *what[1:]))
            yield

    def _batches(self, epoch: int, num_pairs: int) -> Iterator[Tensor]:
        """Cut the epoch's order into global batches and each batch into equal shares of the workers."""
        generator = torch.Generator().manual_seed(derive_seed("order", self.seed, epoch))
        rank, size = self.world.rank, self.world.size
        for batch in torch.randperm(num_pairs, generator=generator).split(self.recipe.batch_size):
            share = len(batch) // size
            if share >= 2:  # batch norm needs two images on each worker
                yield batch[rank * share : (rank + 1) * share]

    @torch.inference_mode()
    def validate(self, validation: Pairs) -> dict[str, float]:
        """Return validation means, in evaluation mode and float32."""
        self.model.eval()
        sums: dict[str, float] = {}
        with self._seeded("validation"):  # a network may draw noise for each prediction
            for index in torch.arange(len(validation)).split(EVALUATION_BATCH):
                inputs, wanted = validation.batch(index, self.world.device)
                for name, value in self.objective.sums(self.model, inputs, wanted).items():
                    sums[name] = sums.get(name, 0.0) + value
        return {f"validation_{name}": value / len(validation) for name, value in sums.items()}

    def remember(self, epoch: int, train_loss: float, means: dict[str, float], *, is_kept: bool) -> None:
        """Extend the curves; keep the weights as the best if they are so far, and as a snapshot if asked."""
        self.epoch = epoch
        for name, value in {"train_loss": train_loss, **means}.items():
            self.curves.setdefault(name, []).append(value)
        short = {name.removeprefix("validation_"): value for name, value in means.items()}
        best = {name.removeprefix("validation_"): value for name, value in self.best.items()}
        key = self.objective.selection_key
        if not best or self.objective.keeps_last or key(short) < key(best):
            self.best_epoch, self.best = epoch, means
            self.best_state = _copied(self.model)
        if is_kept:
            self.snapshots[epoch] = _copied(self.model)

    def save(self, midway: _Midway | None = None) -> None:
        """Write weights, optimiser, best epoch and counters as one safetensors file with its own digest."""
        self.last_save = time.monotonic()
        if self.world.checkpoint is None:
            return
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best_state.items()}
        for epoch, state in self.snapshots.items():
            tensors |= {f"snapshot.{epoch}.{name}": tensor for name, tensor in state.items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in state.items()}
        counters = {
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best": self.best,
            "curves": self.curves,
            "num_batches": midway.num_batches if midway else 0,
        }
        if midway:
            tensors |= {f"generator.{kind}": states for kind, states in midway.generators.items()}
            tensors["midway.total"] = midway.total
        self.world.checkpoint.save(pack(tensors, counters))

    def restore(self) -> None:
        """Continue from the checkpoint if there is a sound one."""
        saved = unpack(self.world.checkpoint)
        if saved is None:
            return
        tensors, counters = saved
        part = {
            prefix: {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            for prefix in ("model.", "best.", "snapshot.", "optimizer.", "generator.")
        }
        self.model.load_state_dict(part["model."])
        self.best_state = {name: tensor.to(self.world.device) for name, tensor in part["best."].items()}
        for name, tensor in part["snapshot."].items():
            epoch, field_name = name.split(".", 1)
            self.snapshots.setdefault(int(epoch), {})[field_name] = tensor.to(self.world.device)
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in part["optimizer."].items():
            number, field_name = name.split(".", 1)
            state.setdefault(int(number), {})[field_name] = _laid_out_like(
                self.trainable[int(number)], tensor
            )
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.epoch, self.best_epoch = counters["epoch"], counters["best_epoch"]
        self.best, self.curves = counters["best"], counters["curves"]
        if part["generator."]:
            self.midway = _Midway(counters["num_batches"], tensors["midway.total"], part["generator."])
        words = self.epoch, counters["num_batches"], self.recipe.epochs
        logger.info("event=resumed epoch=%d batches=%d of=%d", *words)


def new_optimizer(parameters: Sequence[nn.Parameter], recipe: Recipe) -> Optimizer:
    """Return the recipe's optimiser over what is trained."""
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=recipe.momentum, weight_decay=decay, fused=True)
    is_ami = recipe.optimizer == "amsgrad"
    betas = AMI_BETAS if is_ami else (0.9, 0.999)
    return torch.optim.Adam(parameters, lr=rate, betas=betas, weight_decay=decay, amsgrad=is_ami, fused=True)


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Return the step size of an epoch (from 1): a tenth after each milestone."""
    return recipe.learning_rate * 0.1 ** sum(epoch > milestone for milestone in recipe.milestones)


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _laid_out_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """Copy into the parameter's memory order: the fused optimiser walks both by raw position."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)

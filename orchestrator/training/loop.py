"""Training loop: one for every network of the project, in one process or on data-parallel workers.

`fit` drives an objective's step over the epochs and owns what holds for every step alike: data order,
augmentation, curves, the best epoch, checkpoints between and within epochs, divergence, preemption. It takes
a `World` and knows nothing of Ray. Data order and dropout masks depend on (seed, epoch, rank) only, so a fit
that resumes from a checkpoint ends with the same bytes as an uninterrupted one (same numeric profile). Not so
on CUDA where gradients pass `grid_sample`, whose backward there adds in no fixed order: the PLG-MI prior.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from orchestrator.config import Recipe
from orchestrator.config.base import Refused
from orchestrator.training.augmentation import augmentation
from orchestrator.training.checkpoint import load_state
from orchestrator.training.optimizers import Descent, Step
from orchestrator.training.pairs import Pairs, Rows, as_unit, concatenated, hold_out
from orchestrator.training.progress import Midway, Progress, Tally, restored, save
from orchestrator.training.seeds import derive_seed, drawing_from
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

EVALUATION_BATCH = 512  # held-out pairs at a time; their sums, and so the best epoch, depend on it
POLL_BATCHES = 16  # several workers must stop at the same batch: they poll rank 0 this often


class OneOptimizer:
    """The step of an ordinary objective: its loss, one optimiser over the whole model."""

    def __init__(self, model: nn.Module, objective: "Objective", recipe: Recipe, world: World) -> None:
        self.objective, self.world = objective, world
        self.loss = world.wrap(_Loss(objective.wrap(model), objective))
        rates = {model.get_parameter(name): rate for name, rate in objective.own_rates.items()}
        self.descent = Descent(model.parameters(), recipe, objective.steps_by, rates)

    def begin(self, epoch: int, epochs: int) -> None:
        """Set the learning rate and the objective's own schedule."""
        self.objective.begins(epoch, epochs)
        self.descent.begin(epoch)

    def train(self, inputs: Tensor, outputs: Tensor) -> dict[str, Tensor]:
        """Take one step down the loss; the wrapped module averages gradients while they are computed."""
        with self.world.autocast():
            loss = self.loss(inputs, outputs)
        self.descent.clear()
        loss.backward()
        self.descent.optimizer.step()
        return {"loss": loss.detach()}

    def state(self) -> dict[str, Tensor]:
        """Return the optimiser's state."""
        return self.descent.state()

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the optimiser's state."""
        self.descent.load(tensors)


class _Loss(nn.Module):
    """Model and loss as one module, so that every parameter's gradient is averaged over the workers."""

    def __init__(self, model: nn.Module, objective: "Objective") -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        return self.objective.loss(self.model, inputs, outputs)


@dataclass(frozen=True)
class Objective:
    """What a training minimises, sums on held-out pairs and prefers among epochs; defenses change its parts.

    `loss` runs under the precision of the world: it converts its networks' outputs to float32 itself.
    """

    loss: Callable[[Any, Tensor, Tensor], Tensor]  # (model, inputs, outputs) -> mean over the batch, a scalar
    sums: Callable[[Any, Tensor, Tensor], dict[str, float]]  # the same -> sums over the batch, by name
    selection_key: Callable[[Mapping[str, float]], tuple[float, ...]]  # validation means -> smaller is better
    keeps_last: bool = False  # whether the last epoch is kept, however good it is
    augment: Callable[[Tensor], Tensor] = lambda inputs: inputs  # of a batch, after the recipe's augmentation
    begins: Callable[[int, int], None] = lambda epoch, epochs: None  # called before each epoch, from 1
    wrap: Callable[[nn.Module], nn.Module] = lambda model: model  # in place; what the loss is computed with
    steps_by: Callable[[Optimizer, int], Optimizer] = lambda optimizer, batch_size: optimizer
    own_rates: Mapping[str, float] = field(default_factory=dict)  # parameter -> its first learning rate
    step: Callable[[Any, "Objective", Recipe, World], Step] = OneOptimizer


def criterion(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Any, Tensor, Tensor], Tensor]:
    """Return the loss of an objective whose model's outputs, as float32, are compared with the wanted ones.

    `loss` maps both, of one shape or as torch's own losses take them, to their mean over the batch, a scalar.
    """

    def compared(model: nn.Module, inputs: Tensor, outputs: Tensor) -> Tensor:
        return loss(model(inputs).float(), outputs)

    return compared


@dataclass(frozen=True)
class Fitted:
    """Result of a fit; the model itself holds the best epoch's weights (on rank 0)."""

    best_epoch: int  # from 1
    best: dict[str, float]  # validation means of that epoch
    curves: dict[str, list[float]]  # name -> one value for each epoch
    images_seen: int
    snapshots: dict[int, dict[str, Tensor]]  # epoch -> the model's state after it
    held_out: tuple[int, ...]  # positions of the pairs that chose the epoch; none if others did


def predict(model: nn.Module, inputs: Rows, device: torch.device) -> Tensor:
    """Return the model's outputs for inputs (N, ...), float32 on the CPU, in evaluation mode.

    Inputs are uint8 images or float tensors; the model is on `device` and has channels last from then on.
    """
    model.eval()
    model.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        parts = (_outputs(model, part, device) for part in inputs.split(forward_batch(device)))
        return concatenated(parts, len(inputs))


def forward_batch(device: torch.device) -> int:
    """Return how many inputs pass forward at a time: 64 fit a CPU's caches, an accelerator wants more."""
    return 64 if device.type == "cpu" else 512


def _outputs(model: nn.Module, batch: Tensor, device: torch.device) -> Tensor:
    inputs = as_unit(batch.to(device))
    if inputs.dim() == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    return model(inputs).float().cpu().contiguous()


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
    """Train for `recipe.epochs` and leave the best epoch's weights in `model`, on the world's device.

    The best epoch is chosen on a held-out share of the pairs; with `chosen_on` on that, and all pairs are
    trained on. Also return the state after each epoch of `snapshots`. Raise `ValueError` if a worker would
    get fewer than two images of a batch, `Cancelled` if a report cancels, `Preempted` (with the state saved)
    if the process has to end, `Diverged` if a loss is not finite.
    """
    training, validation, held_out = pairs, chosen_on, torch.empty(0, dtype=torch.int64)
    if validation is None:
        kept, held_out = hold_out(len(pairs), recipe.validation_fraction, seed)
        training, validation = pairs.at(kept), pairs.at(held_out)
    _require_batches(len(training), len(held_out), recipe, world)
    training, validation = _placed(training, validation, world.device)
    model.to(world.device)
    model.to(memory_format=torch.channels_last)
    run = _Run(model, objective, recipe, seed, world)
    run.restore()
    for epoch in range(run.progress.epoch + 1, recipe.epochs + 1):
        run.take_epoch(epoch, training, validation, is_kept=epoch in snapshots)
    done = run.progress
    if world.rank == 0:
        model.load_state_dict(done.best_state)
    images_seen, positions = recipe.epochs * len(training), tuple(held_out.tolist())
    return Fitted(done.best_epoch, done.best, done.curves, images_seen, done.snapshots, positions)


def _placed(training: Pairs, validation: Pairs, device: torch.device) -> tuple[Pairs, Pairs]:
    """Return both on the device if they fit; parts of the same tensors share them there too."""
    placed = training.on(device)
    is_shared = validation.inputs is training.inputs and validation.outputs is training.outputs
    if not is_shared or validation.order is None:
        return placed, validation.on(device)
    return placed, replace(placed, order=validation.order.to(placed.device))


def batch_sizes(num_pairs: int, batch_size: int, workers: int) -> list[int]:
    """Return how many of the pairs that are trained on each batch of an epoch has, over all workers."""
    sizes = (len(batch) for batch in torch.arange(num_pairs).split(batch_size))
    return [workers * share for size in sizes if (share := _share(size, workers))]


def _share(size: int, workers: int) -> int:
    """Return each worker's part of a batch; 0 where it is not taken: batch norm needs two images on each."""
    share = size // workers
    return share if share >= 2 else 0


def _require_batches(num_training: int, num_held_out: int, recipe: Recipe, world: World) -> None:
    """Raise `ValueError` unless each worker gets two images of the first batch, as batch norms need."""
    needed = 2 * world.size
    if recipe.batch_size < needed:
        rule = f"must be at least {needed}, two images for each of {world.size} workers"
        raise Refused("recipe.batch_size", recipe.batch_size, rule, f"set it to {needed} or more")
    if num_training < needed:
        raise ValueError(
            f"{num_training} images are left to train on {world.size} workers after holding out "
            f"{num_held_out} of {num_training + num_held_out}; at least {needed} are needed: "
            "give more images or lower recipe.validation_fraction."
        )


class _Run:
    """One fit: its step, what it has reached, and the way to the next epoch."""

    def __init__(
        self, model: nn.Module, objective: Objective, recipe: Recipe, seed: int, world: World
    ) -> None:
        self.model, self.objective, self.recipe = model, objective, recipe
        self.seed, self.world = seed, world
        self.step = objective.step(model, objective, recipe, world)
        self.augment = augmentation(recipe.augmentation)
        self.progress, self.tally = Progress(), Tally()
        self.last_save = time.monotonic()

    def take_epoch(self, epoch: int, training: Pairs, validation: Pairs, *, is_kept: bool) -> None:
        """Train, validate, report and save; raise `Diverged` or `Cancelled` on every rank."""
        world, epochs = self.world, self.recipe.epochs
        self._train(epoch, training)
        losses, reason, verdict = self.tally.means(), "", CONTINUE
        if world.rank == 0:
            means = self._validate(validation)
            reason = self.tally.fault(f"epoch {epoch} of {epochs}", means)
            if not reason:
                self._remember(epoch, losses, means, is_kept=is_kept)
                metrics = {"epoch": epoch, "epochs": epochs, **losses, **means}
                verdict = CONTINUE if world.report(metrics) else CANCEL
                if self._is_time_to_save() and epoch < epochs:
                    self._save()
        verdict = world.agree(DIVERGE if reason else verdict)
        if verdict == DIVERGE:
            raise Diverged(reason or f"the loss diverged in epoch {epoch} of {epochs}")
        if verdict == CANCEL:
            raise Cancelled(f"stopped after epoch {epoch} of {epochs}")
        words = " ".join(f"{name}={value:.6g}" for name, value in losses.items())
        logger.info("event=epoch_ended epoch=%d of=%d %s", epoch, epochs, words)

    def _train(self, epoch: int, training: Pairs) -> None:
        """Take one pass in the order of (seed, epoch), or the rest of one, and tally its losses."""
        self.step.begin(epoch, self.recipe.epochs)
        self.model.train()
        with self._seeded("epoch", epoch, self.world.rank):
            self.tally = self._begun()
            for index in islice(self._batches(epoch, training), self.tally.num_batches, None):
                self._pause(epoch)
                inputs, outputs = training.batch(index, self.world.device)
                changed = self.objective.augment(self.augment(inputs))
                self.tally.add(self.step.train(changed, outputs))

    def _begun(self) -> Tally:
        """Return an empty tally, or that of an epoch resumed midway, with its generators set."""
        midway, self.progress.midway = self.progress.midway, None
        if midway is None:
            return Tally()
        self.world.set_generators(midway.generators)
        return Tally(midway.totals, midway.num_batches)

    def _pause(self, epoch: int) -> None:
        """Between two batches: save if it is due, save and raise `Preempted` if the process has to end."""
        world = self.world
        if world.size > 1 and self.tally.num_batches % POLL_BATCHES:
            return
        verdict = CONTINUE
        if world.rank == 0:
            is_due = world.checkpoint_seconds > 0 and self._is_time_to_save()
            verdict = PREEMPT if world.is_preempted() else SAVE if is_due else CONTINUE
        verdict = world.agree(verdict)
        if verdict == CONTINUE:
            return
        generators = world.generators()
        if world.rank == 0 and self.tally.is_finite():
            self._save(Midway(self.tally.num_batches, self.tally.totals, generators))
        if world.agree(verdict) == PREEMPT:  # asked again, so that no rank is gone before the state is saved
            raise Preempted(
                f"preempted in epoch {epoch} of {self.recipe.epochs}, {self.tally.num_batches} batches done"
            )

    @contextmanager
    def _seeded(self, *key: object) -> Iterator[None]:
        """Draw in this context from generators that depend on the fit's seed and the key."""
        with drawing_from(derive_seed(*key[:1], self.seed, *key[1:]), self.world.device):
            yield

    def _batches(self, epoch: int, training: Pairs) -> Iterator[Tensor]:
        """Cut the epoch's order into global batches and each batch into equal shares of the workers.

        It is drawn on the CPU, so that it is the same on every device, and copied once."""
        generator = torch.Generator().manual_seed(derive_seed("order", self.seed, epoch))
        rank, size = self.world.rank, self.world.size
        order = torch.randperm(len(training), generator=generator).to(training.device)
        for batch in order.split(self.recipe.batch_size):
            if share := _share(len(batch), size):
                yield batch[rank * share : (rank + 1) * share]

    @torch.inference_mode()
    def _validate(self, validation: Pairs) -> dict[str, float]:
        """Return validation means, in evaluation mode and float32."""
        self.model.eval()
        sums: dict[str, float] = {}
        with self._seeded("validation"):  # a network may draw noise for each prediction
            for index in torch.arange(len(validation), device=validation.device).split(EVALUATION_BATCH):
                inputs, outputs = validation.batch(index, self.world.device)
                for name, value in self.objective.sums(self.model, inputs, outputs).items():
                    sums[name] = sums.get(name, 0.0) + value
        return {f"validation_{name}": value / len(validation) for name, value in sums.items()}

    def _remember(
        self, epoch: int, losses: dict[str, float], means: dict[str, float], *, is_kept: bool
    ) -> None:
        """Extend the curves; keep the weights as the best if they are so far, and as a snapshot if asked."""
        done = self.progress
        done.epoch = epoch
        for name, value in {**losses, **means}.items():
            done.curves.setdefault(name, []).append(value)
        if not done.best or self.objective.keeps_last or self._key(means) < self._key(done.best):
            done.best_epoch, done.best, done.best_state = epoch, means, _copied(self.model)
        if is_kept:
            done.snapshots[epoch] = _copied(self.model)

    def _key(self, means: dict[str, float]) -> tuple[float, ...]:
        short = {name.removeprefix("validation_"): value for name, value in means.items()}
        return self.objective.selection_key(short)

    def _is_time_to_save(self) -> bool:
        return time.monotonic() - self.last_save >= self.world.checkpoint_seconds

    def _save(self, midway: Midway | None = None) -> None:
        self.last_save = time.monotonic()
        if self.world.checkpoint is not None:
            save(self.world.checkpoint, self.progress, midway, self.model, self.step)

    def restore(self) -> None:
        """Resume from the world's checkpoint if there is a sound one of this kind of step."""
        saved = load_state(self.world.checkpoint)
        if saved is None:
            return
        try:
            self.progress = restored(*saved, self.model, self.step)
        except ValueError as error:
            logger.warning('event=checkpoint_unusable reason="%s" action=start_over', error)
            return
        done, midway = self.progress, self.progress.midway
        batches = midway.num_batches if midway else 0
        logger.info("event=fit_resumed epoch=%d batches=%d of=%d", done.epoch, batches, self.recipe.epochs)


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

"""One epoch loop for every network of the project: targets, pretraining, judges and inverters.

`fit` takes a `World` and works the same in one process and on N data-parallel workers; it knows nothing of
Ray. The data order and the dropout masks depend on (seed, epoch, rank) only, so a fit that resumes from a
checkpoint ends with the same bytes as one that was never interrupted (same numeric profile).
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from orchestrator.spec import Recipe

logger = logging.getLogger(__name__)

EVALUATION_BATCH = 512
# AMI's released code, for every network (methods of Yang, Chang and Liang)
ADAM_BETAS = (0.5, 0.999)


class Cancelled(Exception):
    """Somebody no longer wants this stage (a scheduler stopped the trial)."""


class Checkpoint(Protocol):
    """Where an unfinished fit leaves its state."""

    def load(self) -> bytes | None:
        """Return what was saved last, or None."""

    def save(self, data: bytes) -> None:
        """Replace what was saved, atomically."""


@dataclass
class World:
    """This process's place among the workers that train one network together."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "float32"  # or bfloat16: autocast of the training steps
    report: Callable[[Mapping[str, float]], bool] = lambda metrics: True  # False asks to stop
    checkpoint: Checkpoint | None = None
    checkpoint_seconds: float = 60.0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Average gradients over the workers; a single worker trains the model itself."""
        return DistributedDataParallel(model) if self.size > 1 else model

    def gather(self, rows: Tensor) -> Tensor:
        """Join every rank's rows (CPU), in the order of the ranks, on every rank."""
        if self.size == 1:
            return rows
        parts: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(parts, rows)
        return torch.cat(parts)

    def agree(self, flag: bool) -> bool:
        """Return rank 0's flag on every rank."""
        if self.size == 1:
            return flag
        shared = torch.tensor([flag], dtype=torch.uint8, device=self.device)
        torch.distributed.broadcast(shared, src=0)
        return bool(shared.item())


@dataclass(frozen=True)
class Pairs:
    """What a network learns: `outputs[i]` from `inputs[i]`; uint8 images count as [0, 1]."""

    inputs: Tensor
    outputs: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, index: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Gather on the CPU, convert on the device."""
        return as_unit(self.inputs[index].to(device)), as_unit(self.outputs[index].to(device))


@dataclass(frozen=True)
class Objective:
    """A loss, what is summed on held-out pairs, and which epoch is best.

    `loss` runs under the precision of the world: it takes its networks' outputs to float32 itself.
    """

    loss: Callable[[Any, Tensor, Tensor], Tensor]  # (model, inputs, wanted outputs) -> scalar mean
    sums: Callable[[Any, Tensor, Tensor], dict[str, float]]  # the same -> sums over the batch
    badness: Callable[[Mapping[str, float]], tuple[float, ...]]  # validation means -> smaller is better
    keeps_last: bool = False  # whether the last epoch is kept, however good it is


@dataclass(frozen=True)
class Fitted:
    """How a fit went; the model itself holds the best epoch's weights."""

    best_epoch: int  # from 1
    best: dict[str, float]  # validation means of that epoch
    curves: dict[str, list[float]]  # name -> one value for each epoch
    images_seen: int


def as_unit(batch: Tensor) -> Tensor:
    """Return uint8 images as float32 in [0, 1]; leave everything else as it is."""
    return batch.to(torch.float32).div_(255.0) if batch.dtype == torch.uint8 else batch


def derive_seed(*parts: object) -> int:
    """Return a 63-bit seed that depends on all parts and nothing else."""
    digest = hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a network whose initial weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("weights", seed))
        return build()


def classification() -> Objective:
    """Cross-entropy on logits; best is the highest held-out accuracy, then the lowest loss."""

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(model(images).float(), labels)

    def sums(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
        return classification_sums(model(images).float(), labels)

    return Objective(loss, sums, lambda means: (-means["accuracy"], means["loss"]))


def classification_sums(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return summed cross-entropy and the number of right answers."""
    return {
        "loss": functional.cross_entropy(logits, labels, reduction="sum").item(),
        "accuracy": (logits.argmax(1) == labels).sum().item(),
    }


def distillation() -> Objective:
    """Cross-entropy against scores instead of labels: a copy of whoever gave them."""

    def loss(model: nn.Module, images: Tensor, scores: Tensor) -> Tensor:
        return functional.cross_entropy(model(images).float(), scores)

    def sums(model: nn.Module, images: Tensor, scores: Tensor) -> dict[str, float]:
        logits = model(images).float()
        return {
            "loss": functional.cross_entropy(logits, scores, reduction="sum").item(),
            "agreement": (logits.argmax(1) == scores.argmax(1)).sum().item(),
        }

    return Objective(loss, sums, lambda means: (means["loss"],))


def reconstruction() -> Objective:
    """Per-pixel mean squared error of images in [0, 1] (AMI, equation 10)."""

    def loss(model: nn.Module, inputs: Tensor, images: Tensor) -> Tensor:
        return functional.mse_loss(model(inputs).float(), images)

    def sums(model: nn.Module, inputs: Tensor, images: Tensor) -> dict[str, float]:
        return {"loss": squared_error_sum(model(inputs).float(), images)}

    return Objective(loss, sums, lambda means: (means["loss"],))


def squared_error_sum(guesses: Tensor, images: Tensor) -> float:
    """Return the sum over images of the per-pixel mean squared error."""
    return (guesses - images).square().flatten(1).mean(1).sum().item()


class _Loss(nn.Module):
    """Model and loss as one module, so that every parameter's gradient is averaged over the workers."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, inputs: Tensor, wanted: Tensor) -> Tensor:
        return self.objective.loss(self.model, inputs, wanted)


def hold_out(pairs: Pairs, fraction: float, seed: int) -> tuple[Pairs, Pairs]:
    """Split off a seeded share of at least one pair, to choose the best epoch on."""
    generator = torch.Generator().manual_seed(derive_seed("validation", seed))
    order = torch.randperm(len(pairs), generator=generator)
    num_held_out = max(1, round(len(pairs) * fraction))
    held_out, kept = order[:num_held_out], order[num_held_out:]
    return Pairs(pairs.inputs[kept], pairs.outputs[kept]), Pairs(
        pairs.inputs[held_out], pairs.outputs[held_out]
    )


@torch.inference_mode()
def predict(model: nn.Module, inputs: Tensor, device: torch.device) -> Tensor:
    """Return the model's float32 outputs on the CPU, in evaluation mode, batch by batch."""
    model.eval()
    batches = inputs.split(EVALUATION_BATCH)
    return torch.cat([model(as_unit(batch.to(device))).float().cpu() for batch in batches])


def fit(
    model: nn.Module,
    pairs: Pairs,
    objective: Objective,
    recipe: Recipe,
    seed: int,
    world: World,
    chosen_on: Pairs | None = None,
) -> Fitted:
    """Train for `recipe.epochs`, leave the best epoch in `model`; `Cancelled` when told to stop.

    The best one is chosen on a held-out share of the pairs, or on `chosen_on`; then all pairs are trained on.
    """
    held_out = chosen_on
    training = pairs
    if held_out is None:
        training, held_out = hold_out(pairs, recipe.validation_fraction, seed)
    if len(training) < 2 * world.size:
        raise ValueError(
            f"{len(training)} images are left to train on {world.size} workers after holding out "
            f"{len(held_out)} of {len(pairs)}; at least {2 * world.size} are needed: "
            "give more images or lower recipe.validation_fraction."
        )
    model.to(world.device)
    model.to(memory_format=torch.channels_last)
    run = _Run(model, world.wrap(_Loss(model, objective)), recipe, seed, world)
    run.restore()
    last_save = time.monotonic()
    for epoch in range(run.epoch + 1, recipe.epochs + 1):
        train_loss = run.train_epoch(epoch, training)
        goes_on = True
        if world.rank == 0:
            means = run.validate(held_out, objective)
            run.remember(epoch, train_loss, means, objective)
            goes_on = world.report(
                {"epoch": epoch, "epochs": recipe.epochs, "train_loss": train_loss, **means}
            )
            if time.monotonic() - last_save >= world.checkpoint_seconds and epoch < recipe.epochs:
                run.save()
                last_save = time.monotonic()
        if not world.agree(goes_on):
            raise Cancelled(f"stopped after epoch {epoch} of {recipe.epochs}")
    if world.rank == 0:
        model.load_state_dict(run.best_state)
    return Fitted(run.best_epoch, run.best, run.curves, recipe.epochs * len(training))


class _Run:
    """The state of one fit between epochs, and its checkpoint."""

    def __init__(self, model: nn.Module, wrapped: nn.Module, recipe: Recipe, seed: int, world: World) -> None:
        self.model, self.wrapped, self.recipe, self.seed, self.world = model, wrapped, recipe, seed, world
        self.trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(
            self.trainable,
            lr=recipe.learning_rate,
            betas=ADAM_BETAS,
            weight_decay=recipe.weight_decay,
            amsgrad=True,
            fused=True,
        )
        self.epoch = self.best_epoch = 0
        self.best: dict[str, float] = {}
        self.best_state: dict[str, Tensor] = {}
        self.curves: dict[str, list[float]] = {}

    def train_epoch(self, epoch: int, training: Pairs) -> float:
        """Take one pass in the order of (seed, epoch); return the mean loss of this worker's batches."""
        self.model.train()
        device = self.world.device
        total, num_batches = torch.zeros((), device=device), 0
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(derive_seed("epoch", self.seed, epoch, self.world.rank))
            for index in self._batches(epoch, len(training)):
                inputs, wanted = training.batch(index, device)
                with torch.autocast(device.type, torch.bfloat16, enabled=self.world.precision == "bfloat16"):
                    loss = self.wrapped(inputs, wanted)
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self.optimizer.step()
                total += loss.detach()
                num_batches += 1
        return total.item() / num_batches

    def _batches(self, epoch: int, num_pairs: int) -> Iterator[Tensor]:
        """Cut the epoch's order into global batches and each batch into equal shares of the workers."""
        generator = torch.Generator().manual_seed(derive_seed("order", self.seed, epoch))
        rank, size = self.world.rank, self.world.size
        for batch in torch.randperm(num_pairs, generator=generator).split(self.recipe.batch_size):
            share = len(batch) // size
            if share >= 2:  # batch norm needs two images on each worker
                yield batch[rank * share : (rank + 1) * share]

    @torch.inference_mode()
    def validate(self, held_out: Pairs, objective: Objective) -> dict[str, float]:
        """Return validation means, in evaluation mode and float32."""
        self.model.eval()
        sums: dict[str, float] = {}
        for index in torch.arange(len(held_out)).split(EVALUATION_BATCH):
            inputs, wanted = held_out.batch(index, self.world.device)
            for name, value in objective.sums(self.model, inputs, wanted).items():
                sums[name] = sums.get(name, 0.0) + value
        return {f"validation_{name}": value / len(held_out) for name, value in sums.items()}

    def remember(self, epoch: int, train_loss: float, means: dict[str, float], objective: Objective) -> None:
        """Extend the curves and keep the weights if this epoch is to be kept so far."""
        self.epoch = epoch
        for name, value in {"train_loss": train_loss, **means}.items():
            self.curves.setdefault(name, []).append(value)
        short = {name.removeprefix("validation_"): value for name, value in means.items()}
        best = {name.removeprefix("validation_"): value for name, value in self.best.items()}
        if not best or objective.keeps_last or objective.badness(short) < objective.badness(best):
            self.best_epoch, self.best = epoch, means
            self.best_state = {
                name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()
            }

    def save(self) -> None:
        """Write weights, optimiser, best epoch and counters as one safetensors file with its own digest."""
        if self.world.checkpoint is None:
            return
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best_state.items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in state.items()}
        counters = {
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best": self.best,
            "curves": self.curves,
        }
        self.world.checkpoint.save(pack(tensors, counters))

    def restore(self) -> None:
        """Continue from the checkpoint if there is a sound one."""
        saved = unpack(self.world.checkpoint)
        if saved is None:
            return
        tensors, counters = saved
        part = {
            prefix: {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            for prefix in ("model.", "best.", "optimizer.")
        }
        self.model.load_state_dict(part["model."])
        self.best_state = {name: tensor.to(self.world.device) for name, tensor in part["best."].items()}
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in part["optimizer."].items():
            number, field_name = name.split(".", 1)
            state.setdefault(int(number), {})[field_name] = _laid_out_like(
                self.trainable[int(number)], tensor
            )
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.epoch, self.best_epoch = counters["epoch"], counters["best_epoch"]
        self.best, self.curves = counters["best"], counters["curves"]
        logger.info("event=resumed epoch=%d of=%d", self.epoch, self.recipe.epochs)


def pack(tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> bytes:
    """Return tensors and counters as one safetensors file with its own digest."""
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save_tensors(stored, {"counters": json.dumps(counters), "sha256": _digest(stored)})


def unpack(checkpoint: Checkpoint | None) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return what was packed last; a damaged checkpoint is reported and counts as none."""
    data = checkpoint.load() if checkpoint else None
    if data is None:
        return None
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        tensors = load_tensors(data)
        if _digest(tensors) != header["__metadata__"]["sha256"]:
            raise ValueError("checksum differs")
        return tensors, json.loads(header["__metadata__"]["counters"])
    except (SafetensorError, ValueError, KeyError) as error:
        logger.warning("event=checkpoint_damaged reason=%s action=start_over", error)
        return None


def _laid_out_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """Copy into the parameter's memory order: the fused optimiser walks both by raw position."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()

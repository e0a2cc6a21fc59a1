"""Benchmark: training of the digit inverter against a plain PyTorch loop, in one run on one machine.

`python -m benchmarks.inverter` prints images per second and CPU seconds of both, for each number of threads.
The plain loop works as AMI's released script does: one PIL image and `ToTensor` for each sample, F(x)
recomputed in each step, float32, Adam as it comes. Both start from the same weights, see the same images in
the same order, and hold out the same images, so their losses must agree. An epoch's time includes its pass
over the held-out images.
"""

import argparse
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ToTensor

from orchestrator import config
from orchestrator.attacks import build_attack
from orchestrator.attacks.inverter import Inverter
from orchestrator.datasets import Location, load
from orchestrator.datasets.images import prepare
from orchestrator.models.build import build_classifier
from orchestrator.threat import BlackBox
from orchestrator.training.loop import fit
from orchestrator.training.objectives import classification, reconstruction
from orchestrator.training.pairs import Pairs, as_unit, hold_out
from orchestrator.training.seeds import derive_seed, seeded
from orchestrator.training.world import World

CLASSES, SIZE, SEED = 10, 32, 0
MODEL = config.Model(name="ami-digit")
PAPER_EPOCHS = 100


@dataclass
class Clock:
    """Wall and CPU seconds of each epoch, and the losses of the last one."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    losses: tuple[float, float] = (0.0, 0.0)
    _last: tuple[float, float] = (0.0, 0.0)

    def start(self) -> None:
        """Set the beginning of the first epoch."""
        self._last = (time.perf_counter(), time.process_time())

    def epoch_ends(self, training: float, held_out: float) -> None:
        """Record an epoch that ends now."""
        now = (time.perf_counter(), time.process_time())
        self.wall.append(now[0] - self._last[0])
        self.cpu.append(now[1] - self._last[1])
        self.losses, self._last = (training, held_out), now


class FloatImages(Dataset):
    """Float images as single PIL images."""

    def __init__(self, images: Tensor, order: list[int]) -> None:
        self.images: np.ndarray = as_unit(images)[:, 0].numpy()
        self.order = order
        self.transform = ToTensor()

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(Image.fromarray(self.images[self.order[index]]))


def plain_inverter(inverter: Inverter) -> nn.Module:
    """Return the same network of PyTorch's own layers with the same weights, mapped by position."""
    widths = [CLASSES, 512, 256, 128]
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(widths)):
        stride, padding = (1, 0) if i == 0 else (2, 1)
        layers += [nn.ConvTranspose2d(before, after, 4, stride, padding), nn.BatchNorm2d(after), nn.Tanh()]
    network = nn.Sequential(*layers, nn.ConvTranspose2d(128, 1, 4, 2, 1), nn.Sigmoid())
    ours = inverter.network.state_dict().values()
    network.load_state_dict(dict(zip(network.state_dict(), ours, strict=True)))
    return network


def plain_encode(scores: Tensor) -> Tensor:
    """Encode as the released script does, all scores kept."""
    values, positions = torch.topk(scores, CLASSES)
    values = torch.clamp(torch.log(values), min=-1000) + 50.0
    values = values + functional.relu(-values.min(1, keepdim=True)[0])
    return torch.zeros(len(scores), CLASSES).scatter_(1, positions, values)[:, :, None, None]


def plain_loop(
    classifier: nn.Module, network: nn.Module, images: tuple[Tensor, Tensor], recipe: config.Recipe
) -> Clock:
    """Train and test `network` for the recipe's epochs, as the released script does."""
    training, held_out = images
    optimizer = torch.optim.Adam(
        network.parameters(), lr=recipe.learning_rate, betas=(0.5, 0.999), amsgrad=True
    )
    classifier.eval()
    clock = Clock()
    clock.start()
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        losses = []
        for batch in DataLoader(FloatImages(training, _order(len(training), epoch)), recipe.batch_size):
            optimizer.zero_grad()
            with torch.no_grad():
                scores = torch.softmax(classifier(batch), dim=1)
            loss = functional.mse_loss(network(plain_encode(scores)), batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        network.eval()
        total = 0.0
        with torch.no_grad():
            for batch in DataLoader(FloatImages(held_out, list(range(len(held_out)))), 1000):
                rebuilt = network(plain_encode(torch.softmax(classifier(batch), dim=1)))
                total += functional.mse_loss(rebuilt, batch, reduction="sum").item()
        clock.epoch_ends(statistics.fmean(losses), total / held_out.numel())
    return clock


def our_loop(inverter: Inverter, pairs: Pairs, recipe: config.Recipe, precision: str) -> Clock:
    """Train the inverter with the project's own `fit`."""
    clock = Clock()

    def report(metrics: Mapping[str, float]) -> bool:
        clock.epoch_ends(metrics["train_loss"], metrics["validation_loss"])
        return True

    clock.start()
    fit(inverter.network, pairs, reconstruction(), recipe, SEED, World(precision=precision, report=report))
    return clock


def _order(num_images: int, epoch: int) -> list[int]:
    """Return the order of `fit`."""
    generator = torch.Generator().manual_seed(derive_seed("order", SEED, epoch))
    return torch.randperm(num_images, generator=generator).tolist()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--images", type=int, default=1137, help="of the built-in digits; a tenth is held out"
    )
    parser.add_argument("--epochs", type=int, default=2, help="in each repeat")
    parser.add_argument("--repeats", type=int, default=2, help="of all loops, in turns")
    arguments = parser.parse_args()
    digits = load("digits", Location(None, None))
    images = prepare(digits.images[: arguments.images], SIZE, 1)
    labels = torch.tensor(digits.labels[: arguments.images])
    classifier = trained_classifier(images, labels)
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        measure(classifier, images, arguments.epochs, arguments.repeats)


def trained_classifier(images: Tensor, labels: Tensor) -> nn.Module:
    """Train F briefly, so that its scores look like a classifier's."""
    classifier = seeded(lambda: build_classifier(MODEL, classes=CLASSES, channels=1, image_size=SIZE), SEED)
    world = World(precision="bfloat16")
    fitted = fit(classifier, Pairs(images, labels), classification(), config.Recipe(epochs=2), SEED, world)
    print(f"digit classifier at width 1: held-out accuracy {fitted.best['validation_accuracy']:.3f}")
    return classifier.to(memory_format=torch.contiguous_format)


def new_inverter() -> Inverter:
    """Build the inverter with the same first weights each time."""
    attack = config.InverterAttack(model=MODEL)
    inverter = seeded(lambda: build_attack(attack, classes=CLASSES, channels=1, image_size=SIZE), SEED)
    assert isinstance(inverter, Inverter)
    return inverter


def measure(classifier: nn.Module, images: Tensor, epochs: int, repeats: int) -> None:
    """Run all loops in turns on the present number of threads and print a table."""
    recipe = config.Recipe(epochs=epochs)
    start = time.perf_counter()
    scores = BlackBox(classifier, config.Release()).query(as_unit(images))
    table_seconds = time.perf_counter() - start
    clocks: dict[str, list[Clock]] = {name: [] for name in ("plain loop", "fit, float32", "fit, bfloat16")}
    for _ in range(repeats):
        for name, past in clocks.items():
            inverter = new_inverter()
            pairs = Pairs(inverter.encode(scores, CLASSES), images)
            if name == "plain loop":
                kept, held_out = hold_out(len(images), recipe.validation_fraction, SEED)
                parts = (images[kept], images[held_out])
                past.append(plain_loop(classifier, plain_inverter(inverter), parts, recipe))
            else:
                past.append(our_loop(inverter, pairs, recipe, name.removeprefix("fit, ")))
    num_training = len(hold_out(len(images), recipe.validation_fraction, SEED)[0])
    print_table(clocks, num_training, table_seconds)


def print_table(clocks: dict[str, list[Clock]], num_training: int, table_seconds: float) -> None:
    """Print medians over the epochs of all repeats."""
    wall = {name: statistics.median([s for c in past for s in c.wall]) for name, past in clocks.items()}
    cpu = {name: statistics.median([s for c in past for s in c.cpu]) for name, past in clocks.items()}
    plain = wall["plain loop"]
    num_epochs = sum(len(clock.wall) for clock in clocks["plain loop"])
    print(
        f"\n{torch.get_num_threads()} thread(s), digit inverter at width 1, k = {CLASSES}, batch 128, "
        f"{num_training} images, medians of {num_epochs} epochs"
    )
    columns = ("images/s", "ratio", "CPU s/epoch", "ratio", "train loss", "held-out loss")
    print(" " * 14 + "".join(f"{column:>14}" for column in columns))
    for name, past in clocks.items():
        training, held_out = past[-1].losses
        print(
            f"{name:14}{num_training / wall[name]:14.0f}{plain / wall[name]:14.2f}{cpu[name]:14.2f}"
            f"{cpu['plain loop'] / cpu[name]:14.2f}{training:14.5f}{held_out:14.5f}"
        )
    amortised = wall["fit, bfloat16"] + table_seconds / PAPER_EPOCHS
    print(
        f"F(x) once, for every inverter of this target and set: {table_seconds:.2f} s; "
        f"with it, the last ratio over {PAPER_EPOCHS} epochs is {plain / amortised:.2f}"
    )


if __name__ == "__main__":
    main()

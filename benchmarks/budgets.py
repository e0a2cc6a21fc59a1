"""Benchmark: training time of a target by frozen-layer budget and defense, in one run on one machine.

`python -m benchmarks.budgets` trains VGG16 on the bundled digits at 64x64 by the project's own stage code,
all settings in turns, and prints median seconds and the ratio to the undefended training (TL-DMI, Table 13).
With `weights+statistics` the outputs of the frozen layers are computed once; that time is included.
"""

import argparse
import statistics
import time
from dataclasses import dataclass

import torch

from orchestrator.config import Data, Target
from orchestrator.datasets import Location, load
from orchestrator.stages.io import Inputs, tensors
from orchestrator.stages.networks import new_classifier
from orchestrator.stages.target import train
from orchestrator.stages.target_model import untrained
from orchestrator.training.world import World

CLASSES = 10
BUDGETS = ("conv3_3", "conv4_1", "conv4_2", "conv4_3", "conv5_3")
BIDO = {kind: {"bido": {"kind": kind}} for kind in ("hsic", "coco")}


@dataclass(frozen=True)
class Setting:
    """One row of the table: a target's settings and their label."""

    label: str
    budget: str = "full"
    freeze: str = "weights"
    defense: str = ""

    def target(self, arguments: argparse.Namespace) -> Target:
        """Return the target's spec."""
        recipe = {"epochs": arguments.epochs, "batch_size": 64, "optimizer": "sgd", "learning_rate": 0.01}
        return Target.model_validate(
            {
                "classes": CLASSES,
                "model": {"name": "vgg16", "width": arguments.width},
                "pretrain": {},
                "budget": self.budget,
                "freeze": self.freeze,
                "defense": BIDO.get(self.defense, {}),
                "recipe": recipe,
            }
        )


SETTINGS = [
    Setting("none"),
    *(Setting(f"TL-DMI {budget}, weights", budget) for budget in BUDGETS),
    *(Setting(f"TL-DMI {budget}, weights+statistics", budget, "weights+statistics") for budget in BUDGETS),
    Setting("BiDO-HSIC", defense="hsic"),
    Setting("BiDO-COCO", defense="coco"),
    Setting("TL-DMI conv3_3 + BiDO-HSIC", "conv3_3", "weights+statistics", "hsic"),
]


def seconds(setting: Setting, arguments: argparse.Namespace) -> tuple[float, int]:
    """Train once; return wall seconds and |theta_C|."""
    data = Data(dataset="digits", image_size=64, channels=3)
    target = setting.target(arguments)
    public = tensors(new_classifier(target.model, CLASSES, data, 1).state_dict())
    inputs = Inputs(
        World(precision=arguments.precision),
        datasets=lambda name: load(name, Location()),
        read=lambda role, name: public,
    )
    network, frozen = untrained(inputs, data, target)
    start = time.perf_counter()
    train(inputs, data, target, network, frozen)
    return time.perf_counter() - start, frozen.trainable


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=float, default=0.25, help="of VGG16")
    parser.add_argument("--epochs", type=int, default=5, help="in each repeat")
    parser.add_argument("--repeats", type=int, default=3, help="of all settings, in turns")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    seconds(SETTINGS[0], argparse.Namespace(**{**vars(arguments), "epochs": 1}))  # warm up
    taken: dict[Setting, list[float]] = {setting: [] for setting in SETTINGS}
    counts = {}
    for _ in range(arguments.repeats):
        for setting in SETTINGS:
            wall, counts[setting] = seconds(setting, arguments)
            taken[setting].append(wall)
    undefended = statistics.median(taken[SETTINGS[0]])
    print(f"{'setting':42} {'theta_C':>10} {'seconds':>8} {'ratio':>6}   all")
    for setting, values in taken.items():
        median = statistics.median(values)
        every = " ".join(f"{value:.2f}" for value in values)
        print(f"{setting.label:42} {counts[setting]:10,d} {median:8.2f} {median / undefended:6.2f}   {every}")


if __name__ == "__main__":
    main()

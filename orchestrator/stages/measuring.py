"""How reconstructions are measured: against the victim's images, or one image for each class.

Every measure is kept for each image with its class, because the identity is the unit of resampling.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orchestrator.datasets.selection import ImageSet
from orchestrator.metrics.classification import is_among
from orchestrator.metrics.pictures import pair_grid, png
from orchestrator.metrics.reconstruction import mse, psnr, ssim
from orchestrator.stages.io import npy
from orchestrator.stages.similarity import Likeness
from orchestrator.training.objectives import as_unit


@dataclass(frozen=True, eq=False)
class Measured:
    """One part (train, test or class) with what was measured of each image."""

    part: str
    victims: Tensor  # (N, C, S, S) uint8
    guesses: Tensor  # (N, C, S, S) in [0, 1]
    labels: Tensor  # (N,) int64, the victim's classes 0..k-1
    values: Mapping[str, Tensor]  # measure -> (N,)
    names: Mapping[str, str]  # measure -> its metric `stage/name`
    totals: Mapping[str, float]  # metric `stage/name` -> what is measured of all images together

    @property
    def metrics(self) -> dict[str, float]:
        """Return each measure's mean over images, and the measures of all."""
        means = {self.names[name]: float(value.double().mean()) for name, value in self.values.items()}
        return means | dict(self.totals)

    def files(self, num_shown: int) -> dict[str, bytes]:
        """Return the measures of every image, and the first images themselves."""
        victims = self.victims[:num_shown]
        shown = self.guesses[:num_shown].mul(255).round().to(torch.uint8)
        return {
            f"grid_{self.part}.png": png(pair_grid(victims, shown)),
            f"reconstructions_{self.part}.npy": npy(shown),
            f"victims_{self.part}.npy": npy(victims),
            f"per_image_{self.part}.npy": npy(self._table()),
        }

    def _table(self) -> np.ndarray:
        """Return a structured array (N,) with the field `label` and one for each measure."""
        table = np.empty(
            len(self.labels), [("label", np.int32), *((name, np.float32) for name in self.values)]
        )
        table["label"] = self.labels.numpy()
        for name, value in self.values.items():
            table[name] = value.numpy()
        return table


@dataclass(frozen=True, eq=False)
class Attacked:
    """Attack images and what is said of them."""

    guesses: Tensor  # (N, C, S, S) in [0, 1]
    labels: Tensor  # (N,) the victim's class that each one is to show
    scores: Tensor  # (N, k) of the victim on them
    logits: Tensor  # (N, K) of the judge on them
    original: Tensor  # (k,) the judge's class of each label


def measure_images(part: str, victims: Tensor, attacked: Attacked, likeness: Likeness) -> Measured:
    """Compare reconstructions with the victim's images (N, C, S, S) uint8, ask the judge whose they are and
    the victim how sure it is (P_T of TL-DMI)."""
    truth, guesses, labels = as_unit(victims), attacked.guesses, attacked.labels
    pixels = {"mse": mse(truth, guesses), "psnr": psnr(truth, guesses), "ssim": ssim(truth, guesses)}
    judged = {f"accuracy_top{n}": is_among(attacked.logits, attacked.original[labels], n) for n in (1, 5)}
    seen = {name: value for name, value in judged.items() if value is not None}
    seen["target_confidence"] = attacked.scores.gather(1, labels[:, None])[:, 0]
    seen |= likeness.of_images(guesses, labels)
    names = {name: f"inversion/{name}_{part}" for name in pixels}
    names |= {name: f"attack/{name}_{part}" for name in seen}
    totals = {f"attack/{name}_{part}": value for name, value in likeness.of_all(guesses, labels).items()}
    return Measured(part, victims, guesses, labels, pixels | seen, names, totals)


def measure_classes(private: ImageSet, attacked: Attacked, likeness: Likeness) -> Measured:
    """Ask the victim and the judge whether they accept the image of each class, and how far it is from real
    ones: F's training images."""
    guesses, labels = attacked.guesses, attacked.labels
    nearest, means, shown = _distances(private, guesses)
    values: dict[str, Tensor] = {
        "mse_mean": means,
        "mse_nearest": nearest,
        "target_top1": (attacked.scores.argmax(1) == labels).float(),
        "target_confidence": attacked.scores.diagonal(),
    }
    judged = {f"judge_top{n}": is_among(attacked.logits, attacked.original[labels], n) for n in (1, 5)}
    values |= {name: value for name, value in judged.items() if value is not None}
    values |= likeness.of_images(guesses, labels)
    totals = {f"class/{name}": value for name, value in likeness.of_all(guesses, labels).items()}
    names = {name: f"class/{name}" for name in values}
    return Measured("class", shown, guesses, labels, values, names, totals)


def _distances(private: ImageSet, guesses: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return for each class the distance to its nearest training image and to its mean image, (k,) each, and
    the real image that is closest to the mean (k, C, S, S) uint8."""
    nearest, means, shown = [], [], []
    for label, guess in enumerate(guesses):
        stored = private.images[private.labels == label]
        images = as_unit(stored)
        mean = images.mean(dim=0)
        nearest.append((images - guess).square().flatten(1).mean(1).min())
        means.append((mean - guess).square().mean())
        shown.append(stored[(images - mean).square().flatten(1).mean(1).argmin()])
    return torch.stack(nearest), torch.stack(means), torch.stack(shown)

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
from orchestrator.stage_io import npy
from orchestrator.training import as_unit


@dataclass(frozen=True, eq=False)
class Measured:
    """One part (train, test or class) with what was measured of each image."""

    part: str
    victims: Tensor  # (N, C, S, S) uint8
    guesses: Tensor  # (N, C, S, S) in [0, 1]
    labels: Tensor  # (N,) int64, the victim's classes 0..k-1
    values: Mapping[str, Tensor]  # measure -> (N,)
    names: Mapping[str, str]  # measure -> its metric `stage/name`

    @property
    def metrics(self) -> dict[str, float]:
        """Return each measure's mean over images."""
        return {self.names[name]: float(value.double().mean()) for name, value in self.values.items()}

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


def measure_images(
    part: str, victims: Tensor, labels: Tensor, guesses: Tensor, logits: Tensor, original: Tensor
) -> Measured:
    """Compare reconstructions with the victim's images and ask the judge whose they are.

    victims (N, C, S, S) uint8, labels (N,), guesses alike in [0, 1], logits (N, K) of the judge, original
    (k,): the judge's class of each label.
    """
    truth = as_unit(victims)
    likeness = {"mse": mse(truth, guesses), "psnr": psnr(truth, guesses), "ssim": ssim(truth, guesses)}
    judged = {f"accuracy_top{n}": is_among(logits, original[labels], n) for n in (1, 5)}
    found = {name: value for name, value in judged.items() if value is not None}
    names = {name: f"inversion/{name}_{part}" for name in likeness}
    names |= {name: f"attack/{name}_{part}" for name in found}
    return Measured(part, victims, guesses, labels, likeness | found, names)


def measure_classes(
    private: ImageSet, guesses: Tensor, scores: Tensor, logits: Tensor, original: Tensor
) -> Measured:
    """Ask the victim and the judge whether they accept the image of each class, and how far it is from real
    ones.

    private: F's training images; guesses (k, C, S, S) in [0, 1]; scores (k, k) of the victim on them; logits
    (k, K) of the judge; original (k,): the judge's class of each label.
    """
    labels = torch.arange(len(guesses))
    nearest, means, shown = _distances(private, guesses)
    values: dict[str, Tensor] = {
        "mse_mean": means,
        "mse_nearest": nearest,
        "target_top1": (scores.argmax(1) == labels).float(),
        "target_confidence": scores.diagonal(),
    }
    judged = {f"judge_top{n}": is_among(logits, original, n) for n in (1, 5)}
    values |= {name: value for name, value in judged.items() if value is not None}
    return Measured("class", shown, guesses, labels, values, {name: f"class/{name}" for name in values})


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

"""Image sets of a trial that several stages read: the adversary's own, the private ones that are attacked."""

import io

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from orchestrator.config import Auxiliary, Data, Evaluation, Prior, Release, Target
from orchestrator.datasets import Dataset, selection
from orchestrator.datasets.gathered import Images
from orchestrator.datasets.selection import ImageSet
from orchestrator.metrics.names import CLASS, PARTS, per_image_file
from orchestrator.stages.io import Inputs, read_npy
from orchestrator.threat import released, released_length
from orchestrator.training.pairs import hold_out
from orchestrator.training.seeds import derive_seed

SUMMED = 512  # images of a set in memory at a time


def auxiliary_images(inputs: Inputs, data: Data, target: Target, auxiliary: Auxiliary) -> Images:
    """Return the adversary's images (N, C, S, S) uint8."""
    private, other = private_and_other(inputs, data)
    return selection.auxiliary_images(private, other, data, target.classes, auxiliary).images


def public_images(inputs: Inputs, data: Data) -> Images:
    """Return the images (N, C, S, S) uint8 that a prior is trained on, by `PlannedSpec.public_data`: the
    public classes where there is a pool of private ones, else the whole set."""
    named = data.dataset if data.class_pool is None else None
    return selection.prior_images(inputs.datasets(data.dataset), data, Prior(dataset=named))


def private_and_other(inputs: Inputs, data: Data) -> tuple[Dataset, Dataset | None]:
    """Return the private data set and the adversary's, if it has one of its own."""
    other = inputs.names.get("auxiliary")
    return inputs.datasets(data.dataset), inputs.datasets(other) if other else None


def private_images(
    inputs: Inputs, data: Data, target: Target, evaluation: Evaluation
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return a seeded sample of the images F was fitted on and of its test images, by part (train, test).

    Images are (N, C, S, S) uint8 with N <= `evaluation.images`, labels (N,) in 0..k-1.
    """
    sets = {}
    for part, (images, _) in private_parts(inputs, data, target).items():
        chosen = drawn_places(len(images), evaluation)
        sets[part] = (images.images[chosen], images.labels[chosen])
    return sets


def private_parts(inputs: Inputs, data: Data, target: Target) -> dict[str, tuple[ImageSet, Tensor]]:
    """Return the images of which those that are attacked are drawn, by part (train, test), and their places
    (M,) among the target's training or test images: F was fitted on them, or they are test images."""
    private = inputs.datasets(data.dataset)
    train, test = (selection.target_images(private, data, target.classes, p) for p in ("train", "evaluation"))
    fitted = _fitted(len(train), target)
    return {"train": (train.at(fitted), fitted), "test": (test, torch.arange(len(test)))}


def drawn_places(num_images: int, evaluation: Evaluation) -> Tensor:
    """Return which of a part's images are attacked, int64 (N,), N <= `evaluation.images`, in the order of the
    values by image."""
    generator = torch.Generator().manual_seed(derive_seed("evaluation", evaluation.seed))
    return torch.randperm(num_images, generator=generator)[: evaluation.images]


def fitted_images(inputs: Inputs, data: Data, target: Target) -> ImageSet:
    """Return the images (N, C, S, S) uint8 that F was fitted on, without those that chose its epoch, with
    labels (N,) in 0..k-1."""
    images = selection.target_images(inputs.datasets(data.dataset), data, target.classes, "train")
    return images.at(_fitted(len(images), target))


def held_out_images(inputs: Inputs, data: Data, target: Target) -> ImageSet:
    """Return F's training images (N, C, S, S) uint8 that were held out to choose its epoch, with labels (N,)
    in 0..k-1; a target whose epoch the test images chose has none."""
    images = selection.target_images(inputs.datasets(data.dataset), data, target.classes, "train")
    is_held = torch.ones(len(images), dtype=torch.bool)
    is_held[_fitted(len(images), target)] = False
    return images.at(is_held.nonzero().flatten())


def _fitted(num_images: int, target: Target) -> Tensor:
    """Return the places of the training images that F was fitted on, int64 (M,): all, where others have."""
    if target.given is not None or target.selection == "test":
        return torch.arange(num_images)
    fitted, _ = hold_out(num_images, target.recipe.validation_fraction, target.seed)
    return fitted


def mean_image(images: Images) -> Tensor:
    """Return the mean of images (N, C, S, S) uint8, float32 (C, S, S) in [0, 1]; the sum is exact."""
    total = torch.zeros(images.shape[1:], dtype=torch.int64)
    for part in images.split(SUMMED):
        total += part.sum(dim=0)
    return total.double().div(len(images)).div(255.0).float()


def parts_of(evaluation: Evaluation) -> tuple[str, ...]:
    """Return the parts of reconstructions that an evaluation leaves: class, or train and test."""
    return (CLASS,) if evaluation.task == "class-inference" else PARTS


def stored_reconstructions(inputs: Inputs, part: str) -> tuple[Tensor, Tensor]:
    """Return all stored reconstructions of a part, (N, C, S, S) uint8, and which of them the adversary made,
    bool (N,): all, unless a file beside them names those that a grey image stands for."""
    images = read_npy(inputs, "images", f"reconstructions_{part}.npy")
    if (name := made_file(part)) in inputs.files("images"):
        return images, read_npy(inputs, "images", name)
    return images, torch.ones(len(images), dtype=torch.bool)


def made_file(part: str) -> str:
    """Return the file beside the reconstructions of a part that tells which of them the adversary made."""
    return f"made_{part}.npy"


def evaluated(inputs: Inputs, part: str) -> np.ndarray:
    """Return what the stage `evaluation` measured of the stored reconstructions of a part, in their order: a
    structured array (N,) with `label` and a field for each metric."""
    data = inputs.read("evaluation", per_image_file(part))
    values: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    return values


def inferred_classes(target: Target, evaluation: Evaluation) -> tuple[Tensor, Tensor]:
    """Return the classes (N,) in 0..k-1 that class inference makes an image of, and each one's number among
    the candidates of its class (N,), ascending; int64."""
    chosen = range(target.classes) if evaluation.classes is None else evaluation.classes
    labels = torch.tensor(list(chosen)).repeat(evaluation.candidates)
    numbers = torch.arange(evaluation.candidates).repeat_interleave(len(chosen))
    return labels, numbers


def attacked_scores(
    inputs: Inputs, target: Target, release: Release, evaluation: Evaluation
) -> tuple[dict[str, Tensor], int]:
    """Return what an attack inverts, part -> released scores (N, k), and how many of them a row shows (m).

    These are the scores of private images, in the order of `private_images`, or one-hot vectors of classes.
    """
    if evaluation.task == "class-inference":
        labels, _ = inferred_classes(target, evaluation)
        return {CLASS: one_hot(labels, target)}, 1
    full = {part: read_npy(inputs, "victims", f"scores_{part}.npy") for part in ("train", "test")}
    scores = {part: released(rows, release) for part, rows in full.items()}
    return scores, released_length(target.classes, release)


def one_hot(labels: Tensor, target: Target) -> Tensor:
    """Return the scores that stand for classes (N,), float32 (N, k)."""
    return functional.one_hot(labels, target.classes).float()

"""Retrieval: where reconstructions stand among private images and classes, with a ceiling and a floor.

The ceiling are photographs that neither the target nor the evaluation model was trained on, the floor is the
image that the attack starts from: what the evaluation model says of these bounds what its acceptance of
reconstructions means.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from orchestrator.config import Attack, Auxiliary, Data, Evaluation, Judge, Prior, Target
from orchestrator.datasets import selection
from orchestrator.datasets.gathered import Images
from orchestrator.datasets.selection import ImageSet
from orchestrator.metrics.classification import is_among
from orchestrator.metrics.names import CLASS, METRICS, per_image_file
from orchestrator.metrics.retrieval import class_rank, nearest_class, own_image
from orchestrator.metrics.yardsticks import GREY
from orchestrator.models.classifier import Classifier
from orchestrator.stages.images import (
    auxiliary_images,
    drawn_places,
    fitted_images,
    inferred_classes,
    mean_image,
    private_parts,
    stored_reconstructions,
)
from orchestrator.stages.io import Inputs, Outputs, npy, per_image
from orchestrator.stages.kept import kept
from orchestrator.stages.measuring import as_failures
from orchestrator.stages.networks import (
    features_and_logits,
    generated,
    is_conditional,
    judged_training,
    stored_generator,
    stored_judge,
)
from orchestrator.training.seeds import derive_seed

STARTS = 256  # latents of a prior whose images stand in turn for what a search of them starts from


def run(  # noqa: PLR0913 - one for each sub-spec that a start depends on
    inputs: Inputs,
    data: Data,
    target: Target,
    attack: Attack,
    judge: Judge,
    evaluation: Evaluation,
    auxiliary: Auxiliary | None = None,
    prior: Prior | None = None,
) -> Outputs:
    """Rank each reconstruction's class and its own private image; judge a photograph and the start beside it.

    Most adversaries that search have no auxiliary images, few a prior.
    """
    num_classes = inputs.datasets(data.dataset).description.num_classes
    judging = _judging(inputs, data, target, judge)
    known = private_parts(inputs, data, target)
    test = known["test"][0]
    photographs = _photographs(inputs, data, target, judge, judging, test)
    if prior is None:
        starts = _start(inputs, data, target, attack, auxiliary)[None]
    else:
        starts = _from_prior(inputs, data, prior, target, evaluation, attack.seed)
    start = judging.seen(starts)
    files: dict[str, bytes] = {}
    metrics: dict[str, float] = {}
    num_images = 0
    for part, (labels, own) in _attacked(target, evaluation, known).items():
        images, is_made = stored_reconstructions(inputs, part)
        seen = judging.seen(images)
        values = judging.among_classes(seen, labels)
        del values["accepted"]  # `evaluation` has it
        values = as_failures(values, is_made, num_classes)
        if own is not None:
            private, members = known[part]
            known_features = (photographs.features if part == "test" else judging.training)[members]
            values |= _among_images(private, known_features, images, seen.features, own)
        places = own if own is not None and part == "test" else _of_classes(test, labels, evaluation)
        ceiling = judging.among_classes(photographs.at(places.clamp_min(0)), labels)
        floor = judging.among_classes(start.at(torch.arange(len(labels)) % len(starts)), labels)
        values |= {f"ceiling_{name}": value.where(places >= 0, torch.nan) for name, value in ceiling.items()}
        values |= {f"floor_{name}": value for name, value in floor.items()}
        files[per_image_file(part)] = npy(per_image(labels, values))
        metrics |= _means(part, values)
        num_images += len(labels)
    return Outputs(files, metrics, num_images)


class _Seen(NamedTuple):
    """Images as the evaluation model sees them."""

    features: Tensor  # (N, d), what its head reads
    logits: Tensor  # (N, K)
    nearest: Tensor  # (N,) int64, the label of the training image with the nearest features

    def at(self, places: Tensor) -> "_Seen":
        """Return those at places (n,) int64."""
        return _Seen(*(part[places] for part in self))


@dataclass(frozen=True, eq=False)
class _Judging:
    """The evaluation model with what it knows of the target's classes."""

    network: Classifier
    device: torch.device
    classes: Tensor  # (k,) int64, its class of each label
    training: Tensor  # (M, d), its features of the target's training images
    labels: Tensor  # (M,) int64, their labels in 0..k-1

    def seen(self, images: Images) -> _Seen:
        """Return what it sees of images (N, C, S, S)."""
        features, logits = features_and_logits(self.network, images, self.device)
        return _Seen(features, logits, nearest_class(features, self.training, self.labels))

    def among_classes(self, seen: _Seen, labels: Tensor) -> dict[str, Tensor]:
        """Return for images (N) that were seen, with these labels, whether they are accepted, the rank of
        their class and whether the nearest training image is of it, (N,) float64 each."""
        accepted = is_among(seen.logits, self.classes[labels])
        assert accepted is not None  # there are at least two classes
        return {
            "accepted": accepted,
            "class_rank": class_rank(seen.logits, self.classes[labels]),
            "class_nearest": (seen.nearest == labels).double(),
        }


def _judging(inputs: Inputs, data: Data, target: Target, judge: Judge) -> _Judging:
    private, device = inputs.datasets(data.dataset), inputs.world.device
    num_classes = private.description.num_classes
    network = stored_judge(inputs, data, judge, num_classes)
    classes = torch.tensor(selection.private_classes(private, data, target.classes))
    labels = selection.target_images(private, data, target.classes, "train").labels
    return _Judging(network, device, classes, judged_training(inputs, classes), labels)


def _photographs(
    inputs: Inputs, data: Data, target: Target, judge: Judge, judging: _Judging, test: ImageSet
) -> _Seen:
    """Return what the evaluation model sees of the target's test images, for every attack on it the same."""
    digest = inputs.datasets(data.dataset).description.digest
    settings = (judge.model.text, data.text, digest, target.classes, str(judging.device))
    file = inputs.read("judge", "model.safetensors")
    return kept("photographs", [file], settings, lambda: judging.seen(test.images))


def _attacked(
    target: Target, evaluation: Evaluation, known: Mapping[str, tuple[ImageSet, Tensor]]
) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Return part -> labels (N,) of what is attacked and, of private images, their places among the part's
    images, (N,), in the order of the values by image."""
    if evaluation.task == "class-inference":
        return {CLASS: (inferred_classes(target, evaluation)[0], None)}
    drawn = {part: drawn_places(len(private), evaluation) for part, (private, _) in known.items()}
    return {part: (known[part][0].labels[own], own) for part, own in drawn.items()}


def _among_images(
    private: ImageSet, seen: Tensor, images: Tensor, features: Tensor, own: Tensor
) -> dict[str, Tensor]:
    """Return the ranks of own private images by pixels and by the evaluation model's features, (N,) each.

    `seen` are the features of private images (M, ...), images (N, C, S, S) uint8 and features (N, ...) those
    of reconstructions, own (N,) the places of their private images.
    """
    labels = private.labels[own]
    by_pixels = own_image(images, labels, own, private.images, private.labels)
    by_features = own_image(features, labels, own, seen, private.labels)
    del by_features["chance"]  # the same
    values = {f"retrieval_{name}": value for name, value in by_pixels.items()}
    return values | {f"retrieval_feature_{name}": value for name, value in by_features.items()}


def _start(inputs: Inputs, data: Data, target: Target, attack: Attack, auxiliary: Auxiliary | None) -> Tensor:
    """Return the image (C, S, S) in [0, 1] that the attack starts from, without noise: a search's grey level,
    else the mean of the adversary's images, or mid-grey where it has none."""
    shape = (data.channels, data.image_size, data.image_size)
    if attack.first_level is not None:
        return torch.full(shape, attack.first_level)
    if auxiliary is not None:
        images = auxiliary_images(inputs, data, target, auxiliary)
    elif attack.trains_target:
        images = fitted_images(inputs, data, target).images
    else:
        return torch.full(shape, GREY / 255.0)
    return mean_image(images)


def _from_prior(
    inputs: Inputs, data: Data, prior: Prior, target: Target, evaluation: Evaluation, seed: int
) -> Tensor:
    """Return images (N, C, S, S) in [0, 1] of latents that are drawn from the prior, not searched: `STARTS`,
    or where the prior is conditional one of each attacked class in turn, as many as there are at least."""
    network = stored_generator(inputs, data, prior, target.classes)
    labels, _ = inferred_classes(target, evaluation)
    generator = torch.Generator().manual_seed(derive_seed("floor", seed))
    latents = torch.randn(STARTS, network.latent_size, generator=generator)
    rows = torch.arange(max(STARTS, len(labels)) if is_conditional(prior) else STARTS)
    classes = labels[rows % len(labels)]
    return generated(network, prior, latents[rows % STARTS], classes, inputs.world.device)


def _of_classes(test: ImageSet, labels: Tensor, evaluation: Evaluation) -> Tensor:
    """Return a drawn test image for each label (N,), its place or -1 where the class has none: each image of
    a class comes once before any comes again."""
    generator = torch.Generator().manual_seed(derive_seed("ceiling", evaluation.seed))
    places = torch.full_like(labels, -1)
    for label in labels.unique():
        rows, photographs = (labels == label).nonzero()[:, 0], (test.labels == label).nonzero()[:, 0]
        if len(photographs):
            order = photographs[torch.randperm(len(photographs), generator=generator)]
            places[rows] = order[torch.arange(len(rows)) % len(order)]
    return places


def _means(part: str, values: Mapping[str, Tensor]) -> dict[str, float]:
    """Return full metric names with means over the images that have a value, where any has."""
    there = {name: value[~value.isnan()] for name, value in values.items()}
    return {str(METRICS[name].on(part)): float(value.mean()) for name, value in there.items() if len(value)}

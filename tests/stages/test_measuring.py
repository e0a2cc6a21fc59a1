"""Measuring of reconstructions, on images and logits made by hand."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from orchestrator.datasets.selection import ImageSet
from orchestrator.metrics.names import METRICS
from orchestrator.stages.io import Inputs
from orchestrator.stages.measuring import Attacked, MeasuredPart, as_failures
from orchestrator.stages.measuring import measure_classes as measure_classes_with
from orchestrator.stages.measuring import measure_images as measure_images_with
from orchestrator.stages.similarity import FeatureSimilarity
from orchestrator.training.world import World

LABELS = torch.tensor([1, 0, 1])
CLASSES = torch.tensor([4, 2])  # the target's classes 0 and 1 are the judge's 4 and 2
SEEN = ("knn_distance", "centroid_distance")  # by the judge, whose features are the pixels here


def similarity(private: ImageSet) -> FeatureSimilarity:
    """Return what compares with private images, without public networks."""
    judged = unit(private.images[:]).flatten(1)
    return FeatureSimilarity(private, judged, Inputs(World(), datasets=_none, read=_none))


def _none(*names: str) -> Any:
    raise AssertionError(f"nothing is read, but {names}")


def measure_images(
    part: str, originals: Tensor, labels: Tensor, reconstructions: Tensor, logits: Tensor
) -> MeasuredPart:
    """Measure against one even training image of each class; the target's scores are 0.7 and 0.3."""
    scores = torch.tensor([0.7, 0.3]).expand(len(labels), 2)
    attacked = Attacked(reconstructions, labels, scores, reconstructions.flatten(1), logits, CLASSES)
    return measure_images_with(
        part, originals, attacked, similarity(ImageSet(grey(0, 255), torch.tensor([0, 1]), 2))
    )


def measure_classes(
    private: ImageSet,
    reconstructions: Tensor,
    scores: Tensor,
    logits: Tensor,
    is_made: Tensor | None = None,
) -> MeasuredPart:
    labels, features = torch.arange(len(reconstructions)), reconstructions.flatten(1)
    attacked = Attacked(reconstructions, labels, scores, features, logits, CLASSES)
    return measure_classes_with(private, attacked, similarity(private), is_made)


def grey(*levels: int) -> Tensor:
    """Return an even image for each level, (N, 1, 16, 16) uint8."""
    return torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 16, 16).contiguous()


def unit(images: Tensor) -> Tensor:
    return images.float() / 255


def choices(*rows: Sequence[int], classes: int = 7) -> Tensor:
    """Return logits (N, classes) whose order begins with the given classes."""
    logits = torch.zeros(len(rows), classes)
    for row, order in zip(logits, rows, strict=True):
        row[list(order)] = torch.arange(len(order), 0, -1).float()
    return logits


def table(measured: MeasuredPart) -> np.ndarray:
    """Return the measures of every image as they are stored."""
    files = measured.files(2)
    return np.load(io.BytesIO(files[f"per_image_{measured.part}.npy"]), allow_pickle=False)


def test_identical_images_are_as_like_as_can_be() -> None:
    originals = torch.randint(0, 256, (3, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    originals = originals.to(torch.uint8)
    measured = measure_images("train", originals, LABELS, unit(originals), choices([2], [4], [2]))
    metrics = {name: value for name, value in measured.metrics.items() if "distance" not in name}
    assert metrics == {
        "inversion/mse_train": 0.0,
        "inversion/psnr_train": 100.0,
        "inversion/ssim_train": pytest.approx(1.0),
        "attack/accuracy_top1_train": 1.0,
        "attack/accuracy_top5_train": 1.0,
        "attack/target_confidence_train": pytest.approx((0.3 + 0.7 + 0.3) / 3),
    }


def test_what_the_adversary_did_not_make_fails_as_badly_as_can_be() -> None:
    """More is better of acceptance, less of a rank; agreement is neither."""
    values = {name: torch.tensor([1.0, 1.0]) for name in ("judge_top1", "class_nearest", "agreement")}
    values |= {name: torch.tensor([1.0, 2.0]) for name in ("class_rank", "recogniser_rank")}
    failed = as_failures(values, torch.tensor([True, False]), 7)
    assert {name: value.tolist() for name, value in failed.items()} == {
        "judge_top1": [1.0, 0.0],
        "class_nearest": [1.0, 0.0],
        "agreement": [1.0, 1.0],
        "class_rank": [1.0, 7.0],
        "recogniser_rank": [1.0, 7.0],
    }
    unchanged = as_failures(values, torch.tensor([True, True]), 7)
    assert all(torch.equal(unchanged[name], values[name]) for name in values)


def test_pixel_metrics_by_hand() -> None:
    """Off by 0.1, 0.2 and nothing: squares 0.01, 0.04, 0; 20, 13.979 and 100 dB. Even images differ by
    their means alone: ssim is (2 a b + c) / (a^2 + b^2 + c) with c = 0.01^2."""
    originals, reconstructions = (
        grey(0, 255, 51),
        unit(grey(0, 255, 51)) + torch.tensor([0.1, -0.2, 0.0]).view(3, 1, 1, 1),
    )
    measured = measure_images("test", originals, LABELS, reconstructions, choices([0], [0], [0]))
    values = measured.values
    torch.testing.assert_close(values["mse"], torch.tensor([0.01, 0.04, 0.0]).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(values["psnr"], torch.tensor([20, 13.9794, 100]).double(), atol=1e-3, rtol=0)
    ssim = [1e-4 / (0.01 + 1e-4), (1.6 + 1e-4) / (1.64 + 1e-4), 1.0]
    # Variances of even images cancel to within 1e-7 in float32, beside a constant of 9e-4.
    torch.testing.assert_close(values["ssim"], torch.tensor(ssim), atol=3e-4, rtol=0)
    assert measured.metrics["inversion/mse_test"] == pytest.approx(0.05 / 3)


def test_distances_to_private_images_by_hand() -> None:
    """In 256 pixels of one level: reconstructions 0.1, 0.4 and 1 of classes whose only images are 1, 0 and
    1."""
    originals = grey(0, 0, 0)
    reconstructions = torch.tensor([0.1, 0.4, 1.0]).view(3, 1, 1, 1).expand(3, 1, 16, 16)
    measured = measure_images("test", originals, LABELS, reconstructions, choices([0], [0], [0]))
    squares = [256 * 0.9**2, 256 * 0.4**2, 0.0]
    assert measured.values["knn_distance"].tolist() == pytest.approx(squares, abs=1e-4)
    roots = [16 * 0.9, 16 * 0.4, 0.0]
    assert measured.values["centroid_distance"].tolist() == pytest.approx(roots, abs=1e-4)


@pytest.mark.parametrize(
    ("logits", "top1", "top5"),
    [
        (choices([2], [4], [2]), [1, 1, 1], [1, 1, 1]),
        (choices([2], [1], [3]), [1, 0, 0], [1, 1, 1]),  # of equal logits the lower class counts as larger
        (choices([4], [2], [0]), [0, 0, 0], [1, 1, 1]),  # whoever takes the target's labels for the judge's
        (choices([0, 1, 3, 5, 6, 2], [5, 6, 4], [0, 1, 3, 5, 2]), [0, 0, 0], [0, 1, 1]),
    ],
)
def test_the_judge_by_hand(logits: Tensor, top1: list[float], top5: list[float]) -> None:
    originals = grey(1, 2, 3)
    measured = measure_images("test", originals, LABELS, unit(originals), logits)
    assert measured.values["accuracy_top1"].tolist() == top1
    assert measured.values["accuracy_top5"].tolist() == top5
    assert measured.metrics["attack/accuracy_top1_test"] == pytest.approx(sum(top1) / 3)


@pytest.mark.parametrize(("classes", "has_top5"), [(5, False), (6, True)])
def test_five_of_five_classes_say_nothing(classes: int, has_top5: bool) -> None:
    originals = grey(1, 2, 3)
    logits = choices([2], [4], [2], classes=classes)
    measured = measure_images("test", originals, LABELS, unit(originals), logits)
    assert ("accuracy_top5" in measured.values) is has_top5
    assert ("attack/accuracy_top5_test" in measured.metrics) is has_top5
    assert ("accuracy_top5" in (table(measured).dtype.names or ())) is has_top5


def test_every_image_has_its_row() -> None:
    originals = grey(0, 128, 255)
    reconstructions = unit(grey(10, 100, 200))
    measured = measure_images("train", originals, LABELS, reconstructions, choices([2], [0], [2]))
    rows = table(measured)
    names = ["label", "mse", "psnr", "ssim", "accuracy_top1", "accuracy_top5", "target_confidence", *SEEN]
    assert [(name, rows.dtype[name]) for name in rows.dtype.names or ()] == [
        (name, np.int32 if name == "label" else np.float32) for name in names
    ]
    assert rows["label"].tolist() == [1, 0, 1]
    assert rows["mse"].tolist() == pytest.approx([(d / 255) ** 2 for d in (10, 28, 55)], rel=1e-4)
    assert rows["accuracy_top1"].tolist() == [1.0, 0.0, 1.0]
    for name in names[1:]:
        mean = rows[name].astype(float).mean()
        assert mean == pytest.approx(measured.metrics[str(METRICS[name].on("train"))], rel=1e-6)


def test_the_first_images_are_shown_and_all_are_measured() -> None:
    originals, reconstructions = grey(0, 128, 255), unit(grey(10, 100, 200))
    measured = measure_images("test", originals, LABELS, reconstructions, choices([2], [0], [2]))
    files = measured.files(2)
    shown = {name: np.load(io.BytesIO(files[f"{name}_test.npy"])) for name in ("victims", "reconstructions")}
    assert np.array_equal(shown["victims"], originals[:2].numpy())
    assert np.array_equal(shown["reconstructions"], grey(10, 100).numpy())
    assert files["grid_test.png"].startswith(b"\x89PNG")
    assert len(table(measured)) == 3


# One image for each class: class 0 has training images 0, 0.2 and 0.4 (mean 0.2), class 1 has 0.6 and 1
# (mean 0.8), both as near to it.
PRIVATE = ImageSet(grey(0, 153, 102, 255, 51), torch.tensor([0, 1, 0, 1, 0]), 2)
RECONSTRUCTIONS = torch.tensor([0.5, 0.9])[:, None, None, None].expand(2, 1, 16, 16)
SCORES = torch.tensor([[0.7, 0.3], [0.6, 0.4]])


def test_nobody_accepts_an_image_that_was_not_made() -> None:
    """Class 0 would be accepted by all; its distances stay those of the image that stands for it."""
    made = measure_classes(PRIVATE, RECONSTRUCTIONS, SCORES, choices([4], [0]))
    missing = torch.tensor([False, True])
    measured = measure_classes(PRIVATE, RECONSTRUCTIONS, SCORES, choices([4], [0]), missing)
    for name, values in measured.values.items():
        rewards = name.startswith(("target_", "judge_"))
        expected = made.values[name] * torch.tensor([0.0 if rewards else 1.0, 1.0])
        assert torch.equal(values, expected), name


def test_classes_by_hand() -> None:
    measured = measure_classes(PRIVATE, RECONSTRUCTIONS, SCORES, choices([4], [0]))
    assert (measured.part, measured.labels.tolist()) == ("class", [0, 1])
    expected = {
        "mse_mean": [0.3**2, 0.1**2],
        "mse_nearest": [0.1**2, 0.1**2],
        "target_top1": [1.0, 0.0],
        "target_confidence": [0.7, 0.4],
        "judge_top1": [1.0, 0.0],
        "judge_top5": [1.0, 1.0],
        "knn_distance": [256 * 0.1**2, 256 * 0.1**2],
        "centroid_distance": [16 * 0.3, 16 * 0.1],
    }
    assert {name: value.tolist() for name, value in measured.values.items()} == {
        name: pytest.approx(value, abs=1e-5) for name, value in expected.items()
    }
    assert measured.metrics == {
        f"class/{name}": pytest.approx(sum(value) / 2, abs=1e-5) for name, value in expected.items()
    }


def test_the_mean_image_is_not_the_mean_of_distances() -> None:
    """A reconstruction that is the class's mean is 0 from it, but not from any image."""
    means = torch.tensor([0.2, 0.8])[:, None, None, None].expand(2, 1, 16, 16)
    values = measure_classes(PRIVATE, means, SCORES, choices([4], [2])).values
    assert values["mse_mean"].tolist() == pytest.approx([0.0, 0.0], abs=1e-9)
    assert values["mse_nearest"].tolist() == pytest.approx([0.0, 0.2**2], abs=1e-6)


def test_the_image_shown_is_the_one_closest_to_the_mean_of_its_class() -> None:
    """Whatever was rebuilt."""
    private = ImageSet(grey(0, 250, 90, 110, 250, 10), torch.tensor([0, 1, 0, 0, 1, 1]), 2)
    for level in (0.0, 0.5, 1.0):
        reconstructions = torch.full((2, 1, 16, 16), level)
        measured = measure_classes(private, reconstructions, SCORES, choices([4], [2]))
        assert measured.originals.dtype == torch.uint8
        assert torch.equal(measured.originals, grey(90, 250))


def test_classes_have_their_rows_and_pictures() -> None:
    measured = measure_classes(PRIVATE, RECONSTRUCTIONS, SCORES, choices([4], [0], classes=5))
    rows = table(measured)
    names = ("label", "mse_mean", "mse_nearest", "target_top1", "target_confidence", "judge_top1")
    assert rows.dtype.names == (*names, *SEEN)  # five of five classes say nothing
    assert rows["label"].tolist() == [0, 1]
    assert set(measured.files(2)) == {
        "grid_class.png",
        "per_image_class.npy",
        "reconstructions_class.npy",
        "victims_class.npy",
    }

"""Yardsticks: every guess derived again image by image, held images left out, empty labels and bins."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from orchestrator.metrics.yardsticks import (
    BINS,
    Owned,
    class_errors,
    class_guesses,
    constant_errors,
    grouped,
    look_up_errors,
)

K, SHAPE = 3, (1, 2, 2)


def images(generator: np.random.Generator, size: int) -> np.ndarray:
    """Return images (N, 1, 2, 2) uint8."""
    return generator.integers(256, size=(size, *SHAPE), dtype=np.uint8)


def truncated(generator: np.random.Generator, size: int, m: int) -> np.ndarray:
    """Return the m largest of K scores at their places, float32 (N, K)."""
    scores = generator.dirichlet(np.ones(K), size).astype(np.float32)
    scores[np.argsort(-scores, axis=1) >= m] = 0  # ranks of places; which ones are dropped does not matter
    return scores


def others_of(owned: Owned, image: np.ndarray) -> Iterator[int]:
    """Yield the places of the adversary's images that differ from a private one."""
    for place, one in enumerate(owned.images[:].numpy()):
        if not np.array_equal(one, image):
            yield place


def bin_of(owned: Owned, scores: np.ndarray) -> tuple[int, int]:
    """Return label and bin of the top score, from sorted scores of the label."""
    label = int(np.argmax(scores))
    tops = sorted(float(row.max()) for row in owned.scores if int(np.argmax(row)) == label)
    if not tops:
        return label, BINS - 1
    edges = [np.interp(share * (len(tops) - 1), range(len(tops)), tops) for share in (0.25, 0.5, 0.75)]
    return label, sum(bool(scores.max() >= edge) for edge in edges)


Cell = tuple[int, int]


def guess(owned: Owned, cells: list[Cell], name: str, image: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return one guess in 0..255 by its definition; `cells` are those of the adversary's images."""
    others = list(others_of(owned, image))
    cell = bin_of(owned, scores)
    same_label = [place for place in others if cells[place][0] == cell[0]]
    same_cell = [place for place in same_label if cells[place] == cell]
    if name == "nearest" and others:
        distances = [
            float(((owned.scores[p].astype(float) - scores.astype(float)) ** 2).sum()) for p in others
        ]
        return owned.images[others[int(np.argmin(distances))]].numpy().astype(float)
    wanted = {"mean": [], "nearest": [], "label": [same_label], "bins": [same_cell, same_label]}[name]
    chosen = next((places for places in [*wanted, others] if places), [])
    return owned.images[chosen].numpy().astype(float).mean(axis=0) if chosen else np.full(SHAPE, 127.5)


def expected(owned: Owned, private: np.ndarray, scores: np.ndarray) -> dict[str, list[float]]:
    """Return the error of each guess at each image."""
    cells = [bin_of(owned, row) for row in owned.scores]
    return {
        name: [
            float(((guess(owned, cells, name, image, row) - image.astype(float)) ** 2).mean()) / 255**2
            for image, row in zip(private, scores, strict=True)
        ]
        for name in ("mean", "label", "bins", "nearest")
    }


@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize("num_owned", [1, 7, 150])
def test_errors_by_their_definitions(m: int, num_owned: int) -> None:
    generator = np.random.default_rng(10 * m + num_owned)
    owned = Owned(torch.from_numpy(images(generator, num_owned)), truncated(generator, num_owned, m))
    private, scores = images(generator, 140), truncated(generator, 140, m)  # more than one chunk
    private[3] = owned.images[0].numpy()  # an image that the adversary holds, with the target's answer to it
    scores[3] = owned.scores[0]
    private[4] = owned.images[0].numpy()  # and with another answer
    found = look_up_errors(owned, torch.from_numpy(private), scores)
    for name, values in expected(owned, private, scores).items():
        assert found[name].dtype == np.float64
        assert found[name] == pytest.approx(np.array(values), rel=1e-12), name
    assert found["nearest"][3] > 0


def test_labels_alone_make_bins_and_nearest_images_of_the_label() -> None:
    generator = np.random.default_rng(5)
    one_hot = np.eye(K, dtype=np.float32)
    owned = Owned(torch.from_numpy(images(generator, 20)), one_hot[generator.integers(2, size=20)])
    private = images(generator, 6)
    scores = one_hot[[0, 1, 2, 0, 1, 2]]
    found = look_up_errors(owned, torch.from_numpy(private), scores)
    assert found["bins"].tolist() == found["label"].tolist()
    assert found["label"][[2, 5]].tolist() == found["mean"][[2, 5]].tolist()  # no image was given label 2
    first = owned.images[owned.labels == 0][0].numpy().astype(float)
    assert found["nearest"][0] == pytest.approx(((first - private[0]) ** 2).mean() / 255**2)


def test_who_has_no_images_guesses_grey() -> None:
    black_and_white = np.array([0, 255], dtype=np.uint8).reshape(2, 1, 1, 1)
    assert constant_errors(black_and_white)["grey"].tolist() == [0.25, 0.25]


def test_a_class_has_its_mean_and_one_of_its_images() -> None:
    generator = np.random.default_rng(6)
    labels = np.array([0, 0, 0, 1, 1, 0])
    owned = Owned(torch.from_numpy(images(generator, 6)), np.eye(K, dtype=np.float32)[labels])
    wanted = np.array([0, 1, 2, 0])
    found = class_guesses(owned, wanted, 9)
    for place, label in enumerate(wanted):
        given = owned.images[:].numpy()[labels == label if label < 2 else slice(None)]
        assert found["label"][place] == pytest.approx(given.astype(float).mean(axis=0) / 255, abs=1e-6)
        assert any(np.allclose(found["random"][place], one / 255, atol=1e-6) for one in given)
    assert all(np.array_equal(found[name], class_guesses(owned, wanted, 9)[name]) for name in found)
    draws = [class_guesses(owned, np.zeros(50, dtype=np.int64), seed)["random"] for seed in (1, 2)]
    assert not np.array_equal(draws[0], draws[1])
    assert len(np.unique(draws[0].reshape(50, -1), axis=0)) == 4


def test_classes_are_compared_with_their_mean_training_image() -> None:
    generator = np.random.default_rng(7)
    training, labels = images(generator, 9), np.array([0, 0, 0, 2, 2, 2, 2, 0, 2])
    guesses = generator.random((3, *SHAPE)).astype(np.float32)
    wanted = np.array([2, 0, 2])
    by_hand = [
        ((one - training[labels == label].mean(axis=0) / 255) ** 2).mean()
        for one, label in zip(guesses, wanted, strict=True)
    ]
    assert class_errors(guesses, wanted, torch.from_numpy(training), labels) == pytest.approx(
        np.array(by_hand)
    )
    with pytest.raises(ValueError, match="no training image"):
        class_errors(guesses, np.array([0, 1, 2]), torch.from_numpy(training), labels)


def test_sums_by_group_over_several_chunks() -> None:
    generator = np.random.default_rng(8)
    pixels, groups = images(generator, 400).reshape(400, -1), generator.integers(5, size=400)
    groups[groups == 3] = 4
    sums, counts = grouped(torch.from_numpy(pixels), groups, 6)
    assert counts.tolist() == [(groups == group).sum() for group in range(6)]
    assert sums.tolist() == [pixels[groups == group].astype(int).sum(axis=0).tolist() for group in range(6)]

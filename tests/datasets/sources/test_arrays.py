"""Arrays in a .npz: optional names and channels; other types and shapes."""

from pathlib import Path

import numpy as np
import pytest

from orchestrator.datasets.sources.registry import open_source

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
LABELS = (np.arange(12) % 10).astype(np.uint8)


def test_npz_with_and_without_names_and_channels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=LABELS)
    source = open_source(str(tmp_path / "a.npz"))
    assert (source.name, source.read(0).shape, source.class_names[9]) == ("a", (28, 28, 1), "9")
    np.savez(tmp_path / "b.npz", images=PIXELS, labels=LABELS % 2, names=np.array(["even", "odd"]))
    assert open_source(str(tmp_path / "b.npz")).class_names == ("even", "odd")


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"images": PIXELS}, "has no array labels"),
        ({"images": PIXELS / 255, "labels": LABELS}, "must be uint8"),
        ({"images": PIXELS[0], "labels": LABELS}, "must be uint8"),
        ({"images": PIXELS, "labels": LABELS[:5]}, "12 images but 5 labels"),
        ({"images": PIXELS, "labels": LABELS.astype(str)}, "must be integers"),
        ({"images": PIXELS, "labels": LABELS.astype(object)}, "cannot be read as arrays"),
    ],
)
def test_unfit_arrays_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], text: str) -> None:
    with (tmp_path / "a.npz").open("wb") as file:
        np.savez(file, allow_pickle=True, **arrays)
    with pytest.raises(ValueError, match=text):
        open_source(str(tmp_path / "a.npz"))


def test_garbage_is_no_npz(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"a\.npz cannot be read as arrays"):
        open_source(str(tmp_path / "a.npz"))

"""The pictures: what a reader sees of a reconstruction, pixel by pixel, and the study's figure."""

import io
import itertools
import logging
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from orchestrator.artifacts import Artifact, Artifacts
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.figures import picture
from orchestrator.metrics.pictures import MIN_SIDE, pair_grid, png, strip
from orchestrator.records import TrialRecord
from tests import tiny


def plain(values: list[int], side: int = 2, channels: int = 1) -> torch.Tensor:
    """Return one image of each value, (n, channels, side, side) uint8."""
    shape = (len(values), channels, side, side)
    return torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(shape).contiguous()


def test_a_strip_sets_images_side_by_side_with_a_white_line() -> None:
    row = strip(plain([10, 20]), 3)
    assert row.shape == (2, 3 * 3 - 1, 3)
    assert row[0, :, 0].tolist() == [10, 10, 255, 20, 20, 255, 255, 255]
    colours = torch.tensor([1, 2, 3], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 2, 2)
    assert strip(colours, 1)[1, 1].tolist() == [1, 2, 3]


def test_victims_stand_above_their_reconstructions() -> None:
    grid = pair_grid(plain([10, 20, 30]), plain([11, 21, 31]))
    scale = grid.shape[1] // 8
    small = grid[::scale, ::scale, 0]
    assert max(grid.shape) >= MIN_SIDE
    # three pairs fill one row and a half of two columns: ceil(sqrt(6)) = 3 columns
    assert small.tolist() == [
        [10, 10, 255, 20, 20, 255, 30, 30],
        [10, 10, 255, 20, 20, 255, 30, 30],
        [11, 11, 255, 21, 21, 255, 31, 31],
        [11, 11, 255, 21, 21, 255, 31, 31],
    ]


def test_rows_that_overflow_go_below_with_a_gap() -> None:
    grid = pair_grid(plain([10, 20, 30, 40], side=400), plain([11, 21, 31, 41], side=400))
    assert grid.shape == (4 * 400 + 2, 3 * 401 - 1, 3)  # large enough already: not enlarged
    assert (grid[0, 0, 0], grid[400, 0, 0], grid[800, 0, 0], grid[802, 0, 0], grid[1202, 0, 0]) == (
        10,
        11,
        255,
        40,
        41,
    )


def test_png_keeps_every_pixel() -> None:
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(pixels)))), pixels)


def stored(store: Artifacts, index: int, axes: dict[str, Any]) -> TrialRecord:
    """Publish made-up reconstructions and return their trial."""
    key = f"evaluation{index}"
    files = {}
    for name, value in (("victims_test.npy", 200), ("reconstructions_test.npy", 40 * index)):
        buffer = io.BytesIO()
        np.save(buffer, plain([value] * 4, side=32).numpy())
        files[name] = buffer.getvalue()
    store.publish(Artifact(key, "evaluation", 1, {}), files)
    return TrialRecord(
        key=key,
        index=index,
        name=key,
        params={},
        axes=axes,
        status="finished",
        stage_keys={"evaluation": key},
    )


@pytest.fixture(scope="module")
def sweep() -> tuple[Artifacts, list[TrialRecord]]:
    """Return six trials over m and seeds, and their store."""
    store = Artifacts(MemoryBlobs("memory"))
    points = [{"m": m, "seed": seed} for seed in (0, 1) for m in (1, 3, "all")]
    return store, [stored(store, index, axes) for index, axes in enumerate(points)]


def drawn(sweep: tuple[Artifacts, list[TrialRecord]], **report: Any) -> np.ndarray | None:
    """Return the study's figure as grey pixels."""
    store, records = sweep
    content = picture(tiny.study({"seed": [0]}, report=report), records, store)
    return None if content is None else np.asarray(Image.open(io.BytesIO(content)).convert("L"))


def test_the_figure_has_victims_on_top_and_a_row_for_each_setting(
    sweep: tuple[Artifacts, list[TrialRecord]],
) -> None:
    first = drawn(sweep, rows=["m"], where={"seed": 0}, columns=3)
    second = drawn(sweep, rows=["m"], where={"seed": 1}, columns=3)
    assert first is not None
    assert second is not None
    for pixels, greys in ((first, [200, 0, 40, 80]), (second, [200, 120, 160, 200])):
        (inside,) = np.nonzero((abs(pixels.astype(int) - 200) <= 2).sum(axis=0) > 20)
        column = np.rint(pixels[:, inside[-10]] / 40) * 40  # through the last column of images
        runs = [(int(value), len(list(run))) for value, run in itertools.groupby(column)]
        assert [value for value, length in runs if value < 240 and length > 20] == greys
    assert drawn(sweep, rows=["m"], columns=2).shape[1] < first.shape[1]  # type: ignore[union-attr]


def test_the_figure_repeats_byte_for_byte(sweep: tuple[Artifacts, list[TrialRecord]]) -> None:
    store, records = sweep
    study = tiny.study({"seed": [0]}, report={"rows": ["m"]})
    assert picture(study, records, store) == picture(study, records[::-1], store)


def test_a_figure_that_no_trial_fits_is_left_out_with_a_warning(
    sweep: tuple[Artifacts, list[TrialRecord]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert drawn(sweep, rows=["m"], where={"seed": 7}) is None
    assert "event=no_picture report.where={'seed': 7}" in caplog.text

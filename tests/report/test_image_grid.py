"""The pictures: what a reader sees of a reconstruction, pixel by pixel, and the study's figure."""

import io
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from orchestrator.config.base import Scalar
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.metrics.pictures import MIN_SIDE, encode_png, pair_grid, strip
from orchestrator.report.image_grid import draw_grid, label
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.sweep.records import Status, TrialRecord
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
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_png(pixels)))), pixels)


TILE = 64  # pixels of a 32-pixel image in the figure


def stored(
    store: Artifacts,
    index: int,
    axes: dict[str, Any],
    *,
    parts: Sequence[str] = ("test",),
    victim: int = 200,
    status: Status = "finished",
) -> TrialRecord:
    """Publish made-up reconstructions of grey 20 * index and return their trial."""
    key = f"evaluation{index}"
    files = {}
    for part in parts:
        for name, value in ((f"victims_{part}.npy", victim), (f"reconstructions_{part}.npy", 20 * index)):
            buffer = io.BytesIO()
            np.save(buffer, plain([value] * 4, side=32).numpy())
            files[name] = buffer.getvalue()
    if status == "finished":
        store.publish(Artifact(key, "evaluation", 1, {}), files)
    keys = {"evaluation": key}
    return TrialRecord(key=key, index=index, name=key, params={}, axes=axes, status=status, stage_keys=keys)


@pytest.fixture
def store() -> Artifacts:
    """Return an empty store."""
    return Artifacts(MemoryBlobs("memory"))


@pytest.fixture
def sweep(store: Artifacts) -> list[TrialRecord]:
    """Return six trials over m and seeds."""
    points = [{"m": m, "seed": seed} for seed in (0, 1) for m in (1, 3, "all")]
    return [stored(store, index, axes) for index, axes in enumerate(points)]


def pixels(records: Sequence[TrialRecord], store: Artifacts, **report: Any) -> np.ndarray:
    """Return the study's figure as grey pixels."""
    content = draw_grid(tiny.study({"seed": [0]}, report=report), records, store)
    assert content is not None
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"))


def tiles(figure: np.ndarray) -> list[list[int]]:
    """Return the greys of the figure's tiles, line by line: whatever fills a square of one grey but white."""
    found: list[tuple[int, int, int]] = []
    free = figure < 250
    for top, left in zip(*np.nonzero(free), strict=True):
        square = figure[top : top + TILE, left : left + TILE]
        whole = square.shape == (TILE, TILE) and (square == square[0, 0]).all()
        if free[top, left] and whole:
            found.append((int(top), int(left), int(square[0, 0])))
            free[top : top + TILE, left : left + TILE] = False
    lines = [[entry for entry in found if entry[0] == top] for top in sorted({top for top, *_ in found})]
    return [[grey for *_, grey in sorted(line, key=lambda one: one[1])] for line in lines]


def test_victims_on_top_and_a_row_for_each_setting(store: Artifacts, sweep: list[TrialRecord]) -> None:
    first = pixels(sweep, store, rows=["m"], where={"seed": "0"}, columns=3)
    assert tiles(first) == [[200] * 3, [0] * 3, [20] * 3, [40] * 3]
    second = pixels(sweep, store, rows=["m"], where={"seed": 1}, columns=9)
    assert tiles(second) == [[200] * 4, [60] * 4, [80] * 4, [100] * 4]  # four images were kept
    assert np.array_equal(pixels(sweep, store, rows=["m"], columns=3), first)  # seed takes its first value


def test_the_figure_repeats_byte_for_byte(store: Artifacts, sweep: list[TrialRecord]) -> None:
    study = tiny.study({"seed": [0]}, report={"rows": ["m"], "beside": ["seed"]})
    assert draw_grid(study, sweep, store) == draw_grid(study, sweep[::-1], store)


def test_settings_stand_side_by_side_and_what_is_missing_is_blank(store: Artifacts) -> None:
    points = [(1, True), (1, False), (3, True), (3, False), (5, True)]
    records = [stored(store, index, {"m": m, "align": align}) for index, (m, align) in enumerate(points)]
    figure = pixels(records, store, rows=["m"], beside=["align"], columns=2)
    assert tiles(figure) == [[200, 200], [0, 20, 0, 20], [40, 60, 40, 60], [80, 80]]
    failed = stored(store, 5, {"m": 9, "align": True}, status="failed")
    taller = pixels([*records, failed], store, rows=["m"], beside=["align"], columns=2)
    assert tiles(taller) == tiles(figure)
    assert taller.shape[0] - figure.shape[0] > TILE  # its row is there, blank


def test_parts_stand_from_left_to_right(store: Artifacts) -> None:
    records = [
        stored(store, 1, {"attack.name": "mia", "align": "-"}, parts=["class"]),
        stored(store, 2, {"attack.name": "inverter", "align": False}, parts=["train", "class"]),
        stored(store, 3, {"attack.name": "inverter", "align": True}, parts=["train", "class"]),
    ]
    rows = ["attack.name", "align"]
    figure = pixels(records, store, rows=rows, parts=["train", "class"], columns=2)
    # The first row has no training images, so the victims come again when there are some.
    assert tiles(figure) == [[200] * 2, [20] * 2, [200] * 4, [40] * 4, [60] * 4]
    figure = pixels(records, store, rows=rows, parts=["class"], columns=2)
    assert tiles(figure) == [[200] * 2, [20] * 2, [40] * 2, [60] * 2]
    figure = pixels(records, store, rows=["attack.name"], where={"align": True}, parts=["class"], columns=2)
    assert tiles(figure) == [[200] * 2, [20] * 2, [60] * 2]  # mia has no such axis


def test_victims_are_shown_again_where_they_are_others(store: Artifacts) -> None:
    points = [(3, 1, 210), (3, 3, 210), (5, 1, 220), (5, 3, 220)]
    records = [
        stored(store, index, {"k": k, "m": m}, victim=victim) for index, (k, m, victim) in enumerate(points)
    ]
    assert tiles(pixels(records, store, rows=["k", "m"], columns=1)) == [[210], [0], [20], [220], [40], [60]]
    beside = pixels(records, store, rows=["m"], beside=["k"], columns=2)
    assert tiles(beside) == [[210, 220] * 2, [0, 40] * 2, [20, 60] * 2]


def test_an_axis_left_out_is_never_mixed(store: Artifacts) -> None:
    records = [stored(store, 1, {"m": 1, "k": 3}), stored(store, 2, {"m": 5, "k": 5})]
    assert tiles(pixels(records, store, rows=["m"], columns=1)) == [[200], [20]]


@pytest.mark.parametrize(
    ("axes", "values", "words"),
    [
        (["auxiliary", "m", "align"], ("generic", 3, False), "generic, m=3, not aligned"),
        (["attack.name", "align"], ("mia", "-"), "mia"),
        (["align"], ("-",), "-"),
        (["attack.weight"], (0.1,), "weight=0.1"),
        (["attack", "release"], ("joint weight=1.0", "truncation=3"), "joint weight=1.0, truncation=3"),
        (["release"], ("all",), "release=all"),
        (
            ["target.recipe.epochs", "attack.recipe.epochs"],
            (1, 2),
            "target.recipe.epochs=1, attack.recipe.epochs=2",
        ),
    ],
)
def test_rows_are_named_as_people_name_them(axes: list[str], values: tuple[Scalar, ...], words: str) -> None:
    assert label(axes, values) == words


@pytest.mark.parametrize(
    ("report", "text"),
    [
        ({"where": {"seed": 7}}, "event=grid_left_out report.where=\"{'seed': 7}\""),
        (
            {"parts": ["class"]},
            'event=grid_left_out report.parts="(\'class\',)" reason="no trial has such images"',
        ),
    ],
)
def test_a_figure_that_no_trial_fits_is_left_out_with_a_warning(
    store: Artifacts,
    sweep: list[TrialRecord],
    caplog: pytest.LogCaptureFixture,
    report: dict[str, Any],
    text: str,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert draw_grid(tiny.study({"seed": [0]}, report={"rows": ["m"], **report}), sweep, store) is None
    assert text in caplog.text

"""The study's image grid, pixel by pixel."""

import io
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orchestrator.config.base import Scalar
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.report.image_grid import TrialImages, _most_images, _row_label, draw_grid, label
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.sweep.records import Status, TrialRecord
from tests import tiny

TILE = 64  # pixels of a 32-pixel image in the figure


def stored(
    store: Artifacts,
    index: int,
    axes: dict[str, Any],
    *,
    parts: Sequence[str] = ("test",),
    original: int = 200,
    status: Status = "finished",
) -> TrialRecord:
    """Publish made-up reconstructions of grey 20 * index and return their trial."""
    key = f"evaluation{index}"
    files = {}
    for part in parts:
        for name, value in ((f"victims_{part}.npy", original), (f"reconstructions_{part}.npy", 20 * index)):
            buffer = io.BytesIO()
            np.save(buffer, np.full((4, 1, 32, 32), value % 256, np.uint8))
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


def test_originals_on_top_and_a_row_for_each_setting(store: Artifacts, sweep: list[TrialRecord]) -> None:
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


def test_pictures_of_held_images_say_so(store: Artifacts) -> None:
    own, held = (
        [replace(stored(store, index, {"m": index}, parts=["train", "test"]), held=parts) for index in (1, 2)]
        for parts in ((), ("test",))
    )
    plain, marked, other = (
        pixels(records, store, rows=["m"], columns=2, parts=parts)
        for records, parts in ((own, ["test"]), (held, ["test"]), (held, ["train"]))
    )
    assert tiles(marked) == tiles(plain) == [[200, 200], [20, 20], [40, 40]]
    assert marked.shape[0] - plain.shape[0] > 15  # a line says what held means
    assert marked.shape[1] > plain.shape[1]  # and labels are longer
    assert np.array_equal(other, pixels(own, store, rows=["m"], columns=2, parts=["train"]))


def test_a_row_names_the_column_whose_images_were_held(store: Artifacts) -> None:
    kinds = {"same-heldout": (), "same-test": ("train", "test")}
    records = [
        replace(stored(store, 1, {"m": 1, "auxiliary": kind}), held=held) for kind, held in kinds.items()
    ]
    report = tiny.study({"seed": [0]}, report={"rows": ["m"], "beside": ["auxiliary"]}).report
    columns: dict[tuple[Scalar, ...], TrialImages] = {
        (one.axes["auxiliary"],): TrialImages({}, one.held) for one in records
    }
    assert _row_label(report, (1,), columns, {"test"}) == "m=1, held: test of same-test"


def test_parts_stand_from_left_to_right(store: Artifacts) -> None:
    records = [
        stored(store, 1, {"attack.name": "mia", "align": "-"}, parts=["class"]),
        stored(store, 2, {"attack.name": "inverter", "align": False}, parts=["train", "class"]),
        stored(store, 3, {"attack.name": "inverter", "align": True}, parts=["train", "class"]),
    ]
    rows = ["attack.name", "align"]
    figure = pixels(records, store, rows=rows, parts=["train", "class"], columns=2)
    # The first row has no training images, so the originals come again when there are some.
    assert tiles(figure) == [[200] * 2, [20] * 2, [200] * 4, [40] * 4, [60] * 4]
    figure = pixels(records, store, rows=rows, parts=["class"], columns=2)
    assert tiles(figure) == [[200] * 2, [20] * 2, [40] * 2, [60] * 2]
    figure = pixels(records, store, rows=["attack.name"], where={"align": True}, parts=["class"], columns=2)
    assert tiles(figure) == [[200] * 2, [20] * 2, [60] * 2]  # mia has no such axis


def test_originals_are_shown_again_where_they_are_others(store: Artifacts) -> None:
    points = [(3, 1, 210), (3, 3, 210), (5, 1, 220), (5, 3, 220)]
    records = [
        stored(store, index, {"k": k, "m": m}, original=original)
        for index, (k, m, original) in enumerate(points)
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


def test_a_figure_of_any_sweep_is_bounded(store: Artifacts, caplog: pytest.LogCaptureFixture) -> None:
    """Three hundred rows, twenty images side by side, and pictures of a thousand pixels."""
    long = [stored(store, index, {"m": index}) for index in range(300)]
    wide = [stored(store, index + 300, {"k": index, "m": 1}) for index in range(20)]
    tall = pixels(long, store, rows=["m"])
    assert tall.shape[0] < 64 * 2 * 90
    assert "event=grid_cut rows=300 beside=1" in caplog.text
    flat = pixels(wide, store, rows=["m"], beside=["k"])
    assert flat.shape[1] < 16_000
    assert "event=grid_cut rows=1 beside=20" in caplog.text


@pytest.mark.parametrize(("side", "rows", "most"), [(32, 3, 250), (224, 9, 55), (299, 64, 4), (2000, 64, 1)])
def test_large_images_leave_room_for_fewer(side: int, rows: int, most: int) -> None:
    image = np.zeros((1, 1, side, side), np.uint8)
    images: dict[tuple[Scalar, ...], dict[tuple[Scalar, ...], TrialImages]] = {
        (row,): {(): TrialImages({"test": (image, image)})} for row in range(rows)
    }
    found = _most_images(images)
    tile = -(-64 // side) * side
    assert found == most
    assert found == 1 or found * tile <= 16_000
    assert found == 1 or 2 * rows * found * tile**2 <= 50_000_000

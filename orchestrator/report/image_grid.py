"""Image grid in the papers' arrangement (AMI, Figures 4-12): private images above their reconstructions.

Blocks (`report.parts`) stand from left to right, a row for each combination of the `rows` axes; the
combinations of the `beside` axes take adjacent columns under each original. `cells` chooses the trial of each
place, a `Line` is a row of tiles, `_Sheet` lays them out in pixels. A place without a finished trial is
blank.
"""

import itertools
import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from orchestrator.config.base import Scalar
from orchestrator.config.report import Report
from orchestrator.config.study import Study
from orchestrator.metrics.plots import figure_png
from orchestrator.report.held import SHOWN, row_label
from orchestrator.report.settings import fits, is_same, narrowed
from orchestrator.report.stored_images import Images, kept_images
from orchestrator.store.artifacts import Artifacts
from orchestrator.sweep.points import ABSENT
from orchestrator.sweep.records import TrialRecord

logger = logging.getLogger(__name__)

TITLES = {"train": "training images", "test": "test images", "class": "classes"}
# Axes that are labelled by their values alone, as mappings are; others are written `name=value`.
WITHOUT_NAME = ("auxiliary", "budget", "attack", "attack.name")

MOST_ROWS, MOST_BESIDE = 64, 16  # combinations of axes in one picture
MOST_SIDE, MOST_PIXELS = 16_000, 50_000_000  # of tiles, originals and reconstructions
LONGEST = 80  # letters of a label

DPI = 120
TILE = 64  # side of an image, at least; this and all below in pixels
MARGIN = 10
CELL_GAP, BLOCK_GAP = 2, 34  # between columns of one image, between blocks
LINE_GAP, ORIGINALS_GAP = 4, 12  # below a row, above later originals
SMALLEST, LARGEST = 15, 30  # height of letters: large pictures are looked at from afar
PIXELS_PER_LETTER = 80  # of the grid's width, within these two: chosen by eye on the AMI studies' grids

Combination = tuple[Scalar, ...]
Cells = dict[Combination, dict[Combination, TrialRecord]]  # rows -> beside -> trial


@dataclass(frozen=True)
class TrialImages:
    """The images that a trial kept: part -> (originals, reconstructions)."""

    parts: Mapping[str, tuple[Images, Images]]
    held: Sequence[str] = ()  # those of which the adversary had the originals


@dataclass
class Line:
    """One row of tiles: block -> image -> its columns; None for a blank."""

    label: str
    is_originals: bool = False
    blocks: list[list[list[np.ndarray | None]]] = field(default_factory=list)

    def tiles(self) -> Iterator[tuple[int, int, int, np.ndarray]]:
        """Yield block, image, column and content (C, S, S) of the tiles that are there."""
        for block, images in enumerate(self.blocks):
            for place, image in enumerate(images):
                for column, tile in enumerate(image):
                    if tile is not None:
                        yield block, place, column, tile


def draw_grid(study: Study, records: Sequence[TrialRecord], store: Artifacts) -> bytes | None:
    """Return the image grid as PNG; None, with a warning, where no finished trial has such images.

    Raise `Corrupt` if a trial's evaluation is damaged or no longer in the store.
    """
    report = study.report
    trials = _cut(cells(report, records), report)
    if not any(trials.values()):
        logger.warning('event=grid_left_out report.where="%s" reason="fits no finished trial"', report.where)
        return None
    images = {
        row: {
            column: TrialImages(kept_images(record, report.parts, store), record.held)
            for column, record in places.items()
        }
        for row, places in trials.items()
    }
    sizes = _sizes(report, images)
    if not sizes:
        logger.warning(
            'event=grid_left_out report.parts="%s" reason="no trial has such images"', report.parts
        )
        return None
    columns = _combinations(report.beside, [r for places in trials.values() for r in places.values()])
    headers = [label(report.beside, column) for column in columns] if report.beside else []
    lines = list(_lines(report, images, sizes, columns))
    is_held = any(set(one.held) & sizes.keys() for row in images.values() for one in row.values())
    return _Sheet([TITLES[part] for part in sizes], headers, lines, [SHOWN] if is_held else []).png()


def cells(report: Report, records: Sequence[TrialRecord]) -> Cells:
    """Return the finished trial of each combination; one whose trials all failed keeps its row.

    Axes that the report does not name, seeds too, keep the value of their first trial.
    """
    ordered = sorted(records, key=lambda one: one.index)
    fitting = [record for record in ordered if fits(record.axes, report.where, absent_fits=True)]
    fitting = narrowed(fitting, {*report.rows, *report.beside, *report.where})
    trials: Cells = {row: {} for row in _combinations(report.rows, fitting)}
    for record in fitting:
        if record.status == "finished":
            places = trials[_values(report.rows, record)]
            places.setdefault(_values(report.beside, record), record)
    return trials


def _cut(trials: Cells, report: Report) -> Cells:
    """Return the rows and, in each, the columns of an image that a picture has room for."""
    beside = _combinations(report.beside, [one for places in trials.values() for one in places.values()])
    if len(trials) > MOST_ROWS or len(beside) > MOST_BESIDE:
        logger.warning("event=grid_cut rows=%d beside=%d", len(trials), len(beside))
    kept = beside[:MOST_BESIDE]
    return {
        row: {column: record for column, record in places.items() if column in kept}
        for row, places in itertools.islice(trials.items(), MOST_ROWS)
    }


def _combinations(axes: Sequence[str], records: Sequence[TrialRecord]) -> list[Combination]:
    """Return the combinations that occur, ordered axis by axis as their values appear."""
    ordered = sorted(records, key=lambda one: one.index)
    seen = {axis: list(dict.fromkeys(r.axes.get(axis, ABSENT) for r in ordered)) for axis in axes}
    occurring = {_values(axes, record) for record in ordered}
    return [one for one in itertools.product(*seen.values()) if one in occurring]


def _values(axes: Sequence[str], record: TrialRecord) -> Combination:
    return tuple(record.axes.get(axis, ABSENT) for axis in axes)


def _sizes(report: Report, images: Mapping[Combination, Mapping[Combination, TrialImages]]) -> dict[str, int]:
    """Return the number of images in each block; a part that no trial has is no block."""
    sizes: dict[str, int] = {}
    most = _most_images(images)
    for part in dict.fromkeys(report.parts):
        counts = [
            len(one.parts[part][0]) for row in images.values() for one in row.values() if part in one.parts
        ]
        if counts:
            sizes[part] = min(report.columns, max(counts), most)
            if most < min(report.columns, max(counts)):
                logger.warning("event=grid_cut part=%s images=%d", part, most)
        else:
            logger.warning('event=block_left_out report.parts=%s reason="no trial has such images"', part)
    return sizes


def _most_images(images: Mapping[Combination, Mapping[Combination, TrialImages]]) -> int:
    """Return how many images a block may have so that the picture has at most `MOST_PIXELS`."""
    pairs = [pair for row in images.values() for one in row.values() for pair in one.parts.values()]
    side = max((pair[0].shape[-1] for pair in pairs), default=TILE)
    tile = math.ceil(TILE / side) * side
    columns = len({column for row in images.values() for column in row})
    blocks = len({part for row in images.values() for one in row.values() for part in one.parts})
    across = min(MOST_SIDE // tile, MOST_PIXELS // (2 * len(images) * tile * tile))
    return max(1, across // max(columns * blocks, 1))


def _lines(
    report: Report,
    images: Mapping[Combination, Mapping[Combination, TrialImages]],
    sizes: Mapping[str, int],
    columns: Sequence[Combination],
) -> Iterator[Line]:
    """Yield rows of reconstructions, each below its originals unless these are the ones shown last."""
    last: dict[str, list[Images | None]] = {}
    for row, places in images.items():
        line = Line(_row_label(report, row, places, sizes))
        above = Line("training image" if set(sizes) == {"class"} else "original", is_originals=True)
        own: dict[str, list[Images | None]] = {}
        for part, size in sizes.items():
            pairs = [places[c].parts.get(part) if c in places else None for c in columns]
            line.blocks.append(_tiles([pair and pair[1] for pair in pairs], size))
            originals = _originals([pair and pair[0] for pair in pairs], size)
            above.blocks.append(_tiles(originals, size))
            if any(one is not None for one in originals):
                own[part] = originals
        if not all(part in last and _are_equal(last[part], originals) for part, originals in own.items()):
            last = own
            yield above
        yield line


def _row_label(
    report: Report, row: Combination, places: Mapping[Combination, TrialImages], shown: Collection[str]
) -> str:
    """Return a row's label, which says of which shown parts the adversary had the originals."""
    held = {
        label(report.beside, column): [p for p in one.held if p in shown] for column, one in places.items()
    }
    return row_label(label(report.rows, row), held)


def _tiles(columns: Sequence[Images | None], size: int) -> list[list[np.ndarray | None]]:
    """Return, for each image of a block, the tiles of its columns."""
    return [
        [None if images is None or place >= len(images) else images[place] for images in columns]
        for place in range(size)
    ]


def _originals(columns: Sequence[Images | None], size: int) -> list[Images | None]:
    """Return the originals of each column, or those of all columns where they are the same."""
    cut = [None if images is None else images[:size] for images in columns]
    present = [images for images in cut if images is not None]
    if present and all(np.array_equal(images, present[0]) for images in present):
        return [present[0]]
    return cut


def _are_equal(ones: Sequence[Images | None], others: Sequence[Images | None]) -> bool:
    """Return whether two rows have the same originals."""
    return len(ones) == len(others) and all(
        one is other or (one is not None and other is not None and np.array_equal(one, other))
        for one, other in zip(ones, others, strict=True)
    )


def label(axes: Sequence[str], values: Combination) -> str:
    """Return a combination as text, without axes that do not exist there."""
    last = [axis.rsplit(".", 1)[-1] for axis in axes]
    words = []
    for axis, name, value in zip(axes, last, values, strict=True):
        if value == ABSENT:
            continue
        if axis == "align":
            words.append("aligned" if is_same(value, True) else "not aligned")
        elif isinstance(value, str) and (axis in WITHOUT_NAME or "=" in value):
            words.append(value)
        else:
            words.append(f"{name if last.count(name) == 1 else axis}={value}")
    return ", ".join(words)[:LONGEST] or ABSENT


class _Sheet:
    """Layout of tiles and words in pixels, from the top left corner."""

    def __init__(
        self, titles: Sequence[str], headers: Sequence[str], lines: Sequence[Line], notes: Sequence[str]
    ) -> None:
        self._titles, self._lines = titles, lines
        side = max(tile.shape[-1] for line in lines for *_, tile in line.tiles())
        self._tile = math.ceil(TILE / side) * side
        self._image = max(len(headers), 1) * (self._tile + CELL_GAP) - CELL_GAP  # all columns of one image
        self._pitch = self._image + (self._tile // 4 if len(headers) > 1 else LINE_GAP)
        widths = [len(block) * self._pitch for block in lines[0].blocks]
        self._letter = min(LARGEST, max(SMALLEST, sum(widths) // PIXELS_PER_LETTER))
        self._headers, key = self._fitted(headers)
        key = [*key, *notes]
        wide = [max(w, self._measure(title)) + BLOCK_GAP for w, title in zip(widths, titles, strict=True)]
        left = 2 * MARGIN + max(self._measure(line.label) for line in lines)
        self._starts = [left + before for before in itertools.accumulate(wide[:-1], initial=0)]
        inside = max(sum(wide) - BLOCK_GAP, *(self._measure(text) for text in key), 0)
        self._key = self._flow(key, inside)
        self._width = left + inside + MARGIN
        self._words: list[tuple[float, float, str, str]] = []  # x, centre in y, text, which side x is

    def png(self) -> bytes:
        """Return the sheet as PNG."""
        tops, height = self._place_words()
        pixels = np.full((height, self._width, 3), 255, np.uint8)
        for top, line in zip(tops, self._lines, strict=True):
            for block, place, column, tile in line.tiles():
                left = self._x(block, place, column, len(line.blocks[block][place]))
                pixels[top : top + self._tile, left : left + self._tile] = self._enlarged(tile)
        figure = Figure(figsize=(self._width / DPI, height / DPI), dpi=DPI)
        figure.figimage(pixels, origin="upper")
        font = {"fontsize": self._letter * 72 / DPI, "va": "center_baseline"}
        for x, y, text, side in self._words:
            figure.text(x / self._width, 1 - y / height, text, ha=side, **font)
        return figure_png(figure)

    def _place_words(self) -> tuple[list[int], int]:
        """Record the words' places; return the top of each line and the height of all, in pixels."""
        step = 3 * self._letter // 2
        y = MARGIN
        for text in self._key:
            self._words.append((self._starts[0], y + step / 2, text, "left"))
            y += step
        for start, block, title in zip(self._starts, self._lines[0].blocks, self._titles, strict=True):
            centre = start + ((len(block) - 1) * self._pitch + self._image) / 2
            self._words.append((max(centre, start + self._measure(title) / 2), y + step / 2, title, "center"))
        y += step + LINE_GAP
        tops: list[int] = []
        is_headed = not self._headers
        for line in self._lines:
            if line.is_originals:
                y += ORIGINALS_GAP if tops else 0
            elif not is_headed:
                self._place_headers(y + step / 2)
                y, is_headed = y + step, True
            tops.append(y)
            self._words.append((self._starts[0] - MARGIN, y + self._tile / 2, line.label, "right"))
            y += self._tile + LINE_GAP
        return tops, y - LINE_GAP + MARGIN

    def _place_headers(self, y: float) -> None:
        num = len(self._headers)
        for block, images in enumerate(self._lines[0].blocks):
            for place, column in itertools.product(range(len(images)), range(num)):
                x = self._x(block, place, column, num) + self._tile / 2
                self._words.append((x, y, self._headers[column], "center"))

    def _x(self, block: int, place: int, column: int, num_columns: int) -> int:
        """Return the left edge of a tile; one that has no neighbours stands in the middle of its image."""
        left = self._starts[block] + place * self._pitch
        if num_columns == 1:
            return left + (self._image - self._tile) // 2
        return left + column * (self._tile + CELL_GAP)

    def _fitted(self, headers: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return headers that fit over their columns, and a key where they had to become numbers."""
        if all(self._measure(header) <= self._tile - CELL_GAP for header in headers):
            return list(headers), []
        numbers = [str(number) for number in range(1, len(headers) + 1)]
        return numbers, [f"{number}: {header}" for number, header in zip(numbers, headers, strict=True)]

    def _flow(self, words: Sequence[str], width: int) -> list[str]:
        """Return the words in lines of at most `width` pixels."""
        lines: list[str] = []
        for word in words:
            joined = f"{lines[-1]}    {word}" if lines else word
            if lines and self._measure(joined) <= width:
                lines[-1] = joined
            else:
                lines.append(word)
        return lines

    def _measure(self, text: str) -> int:
        """Return the width of a word in pixels."""
        return math.ceil(TextPath((0, 0), text, size=self._letter).get_extents().width) if text else 0

    def _enlarged(self, tile: np.ndarray) -> np.ndarray:
        """Return an image (C, S, S) as (T, T, 3) with square pixels."""
        places = np.arange(self._tile) * tile.shape[-1] // self._tile
        colours = np.broadcast_to(tile, (3, *tile.shape[1:])).transpose(1, 2, 0)
        return colours[places][:, places]

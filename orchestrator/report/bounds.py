"""Bounds: an attack's reconstructions between real photographs and the image that the attack starts from.

The share that the evaluation model accepts says little by itself: held-out photographs of the same classes
are the ceiling of it, the start, not optimised, is the floor. Ranks stand beside it, and how often the
nearest private image of the class is the very one, which no label gives away.
"""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from orchestrator.config.report import Report
from orchestrator.metrics.bounds import ATTACK, IMAGES, LABELS, accepted, bound_of
from orchestrator.metrics.names import CLASS, METRICS, PARTS
from orchestrator.report.held import held_column, without_empty
from orchestrator.report.means import mean_and_half
from orchestrator.report.per_image import PerImage
from orchestrator.report.settings import Setting, by_setting
from orchestrator.report.statistics import half_column
from orchestrator.sweep.adversary import HELD
from orchestrator.sweep.inferred import shared_axes
from orchestrator.sweep.records import TrialRecord

COLUMNS = ("accepted", "class rank", "class nearest", "own image nearest", "chance of it", "others nearer")
"""Share that the judge accepts; rank of the right class in its scores; share whose nearest training image is
of the class; of reconstructions of images, share whose nearest image of the class is the own one, with its
chance, and the share of the class's other images that are nearer (chance 0.5), by pixels."""

OF_IMAGES = ("retrieval_top1", "retrieval_chance", "retrieval_nearer")


def bounds_table(records: Sequence[TrialRecord], images: PerImage, report: Report) -> pd.DataFrame:
    """Return three rows for each setting and part, photographs, attack and start: means over replicates with
    half of their 95 % interval, over classes too. Empty where no trial has them."""
    rows = []
    for setting, members in by_setting(records, report.repeats).items():
        for part in (*PARTS, CLASS):
            if not any(str(METRICS["class_rank"].on(part)) in record.metrics for record in members):
                continue
            head = {**dict(setting), "seeds": len(members), **held_column(members), "part": part}
            for shown, columns in _shown(part).items():
                rows.append({**head, IMAGES: shown, **_cells(members, columns, images, report)})
    return without_empty(pd.DataFrame(rows), [HELD]) if rows else pd.DataFrame()


def bound_rows(
    settings: Mapping[Setting, Sequence[TrialRecord]],
    columns: Callable[[str], Mapping[str, str]],
    images: PerImage | None,
    report: Report,
) -> list[dict[str, object]]:
    """Return the rows of ceiling and floor below those of attacks, one for all settings of the same numbers.

    `columns`: bound -> column -> metric; columns that no trial of a setting has are left out.
    """
    rows: list[dict[str, object]] = []
    for bound, label in LABELS.items():
        shared: dict[str, list[tuple[Setting, int, dict[str, float]]]] = {}
        for setting, members in settings.items():
            names = {name for record in members for name in record.metrics}
            known = {column: name for column, name in columns(bound).items() if name in names}
            if cells := _cells(members, known, images, report):
                shared.setdefault(str(cells), []).append((setting, len(members), cells))
        for same in shared.values():
            axes = shared_axes([dict(setting) for setting, _, _ in same], [dict(one) for one in settings])
            rows.append({**axes, IMAGES: label, "seeds": max(size for _, size, _ in same), **same[0][2]})
    return rows


def without_label(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table without the column that labels ceiling and floor if it has no such rows."""
    return table.drop(columns=IMAGES) if (table[IMAGES] == ATTACK).all() else table


def _cells(
    members: Sequence[TrialRecord], columns: Mapping[str, str], images: PerImage | None, report: Report
) -> dict[str, float]:
    """Return means with half intervals by column, of the metrics of columns."""
    cells: dict[str, float] = {}
    for column, metric in columns.items():
        cells[column], cells[half_column(column)] = mean_and_half(members, metric, images, report)
    return cells


def _shown(part: str) -> Mapping[str, Mapping[str, str]]:
    """Return whose images -> column -> metric."""
    own = [str(accepted(part)), *(str(METRICS[name].on(part)) for name in ("class_rank", "class_nearest"))]
    of_images = [] if part == CLASS else [str(METRICS[name].on(part)) for name in OF_IMAGES]

    def bound(name: str) -> dict[str, str]:
        metrics = bound_of(part, name)
        return dict(zip(COLUMNS, [metrics[metric] for metric in own], strict=False))

    return {
        LABELS["ceiling"]: bound("ceiling"),
        ATTACK: dict(zip(COLUMNS, (*own, *of_images), strict=False)),
        LABELS["floor"]: bound("floor"),
    }

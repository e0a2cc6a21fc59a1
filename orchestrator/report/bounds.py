"""Bounds: an attack's reconstructions between real photographs and the image that the attack starts from.

The share that the evaluation model accepts says little by itself: held-out photographs of the same classes
are the ceiling of it, the start, not optimised, is the floor. Ranks stand beside it, and how often the
nearest private image of the class is the very one, which no label gives away.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from orchestrator.config.report import Report
from orchestrator.metrics.names import CLASS, METRICS, PARTS
from orchestrator.report.held import held_column, without_empty
from orchestrator.report.means import mean_and_half
from orchestrator.report.per_image import PerImage
from orchestrator.report.settings import by_setting
from orchestrator.report.statistics import half_column
from orchestrator.sweep.adversary import HELD
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
            for shown, metrics in _shown(part).items():
                row: dict[str, object] = {**head, "images": shown}
                for column, metric in metrics.items():
                    full = str(METRICS[metric].on(part))
                    row[column], row[half_column(column)] = mean_and_half(members, full, images, report)
                rows.append(row)
    return without_empty(pd.DataFrame(rows), [HELD]) if rows else pd.DataFrame()


def _shown(part: str) -> Mapping[str, Mapping[str, str]]:
    """Return what is judged -> column -> metric."""
    accepted = "judge_top1" if part == CLASS else "accuracy_top1"
    of_images = () if part == CLASS else OF_IMAGES
    names = ("class_rank", "class_nearest")
    bounds = {
        bound: dict(zip(COLUMNS, [f"{bound}_{name}" for name in ("accepted", *names)], strict=False))
        for bound in ("ceiling", "floor")
    }
    return {
        "held-out photographs": bounds["ceiling"],
        "attack": dict(zip(COLUMNS, (accepted, *names, *of_images), strict=False)),
        "start, not optimised": bounds["floor"],
    }

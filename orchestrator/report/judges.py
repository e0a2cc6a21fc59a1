"""Judges side by side: the share of reconstructions that each of them accepts, where they agree, and what a
recogniser that others trained says.

Means over all judges of a trial have an interval that resamples them too, as one more crossed factor beside
seeds and classes: what another judge would say is as uncertain as what another training would leave.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import pandas as pd

from orchestrator.config.report import Report
from orchestrator.metrics.bounds import ATTACK, IMAGES, accepted, bound_of
from orchestrator.metrics.names import BY_RECOGNISER, CLASS, JUDGEMENT, METRICS, PARTS
from orchestrator.report.bounds import bound_rows, without_label
from orchestrator.report.crossed import CLASSES
from orchestrator.report.held import held_column, without_empty
from orchestrator.report.means import cross_replicates, mean_and_half
from orchestrator.report.per_image import PerImage
from orchestrator.report.settings import Setting, by_setting, finished_trials, replicate_of
from orchestrator.report.statistics import Uncertainty, half_column
from orchestrator.sweep.adversary import HELD
from orchestrator.sweep.records import TrialRecord

JUDGE, EVERY = "judge", "all judges"
"""Columns: what the trial's own judge accepts, and the mean over it and further ones."""

JUDGES = "judges"
"""The factor whose levels are the judges of a trial."""

RECOGNISER = {
    "recogniser_accepted": "recogniser",
    "recogniser_top1": "recogniser top-1",
    "recogniser_rank": "rank",
    "false_positives": "false positives",
}
"""Metric of a recogniser -> its column."""

WIDE = ("top-5 ", "kappa ", "false accepts", "false rejects")
"""How columns begin that only the CSV has room for."""


def judges_table(records: Sequence[TrialRecord], images: PerImage, report: Report) -> pd.DataFrame:
    """Return a row for each part and setting with further judges or a recogniser: means over replicates with
    half of their 95 % interval, over classes too; below each part's ceiling and floor of the trial's own
    judge. Empty without such judges."""
    rows: list[dict[str, object]] = []
    for part in (*PARTS, CLASS):
        judged: dict[Setting, list[TrialRecord]] = {}
        for setting, members in by_setting(records, report.repeats).items():
            if cells := _cells(members, part, images, report):
                judged[setting] = members
                head = {**dict(setting), "seeds": len(members), **held_column(members)}
                rows.append(head | {"part": part, IMAGES: ATTACK, **cells})
        bounds = bound_rows(judged, partial(_bounds, part), images, report)
        rows += [row | {HELD: "", "part": part} for row in bounds]
    return without_label(without_empty(pd.DataFrame(rows), [HELD])) if rows else pd.DataFrame()


def narrow(columns: Sequence[str]) -> list[str]:
    """Return the columns that tables for people have room for."""
    return [column for column in columns if not column.startswith(WIDE)]


def judge_lines(records: Sequence[TrialRecord]) -> list[str]:
    """Return lines of Markdown about all trials: how far further judges and the recogniser bear out the
    judge."""
    lines = []
    finished = finished_trials(records)
    for name in further_judges(finished):
        if shares := _values(finished, "agreement", name):
            words = f"`{name}` and the judge say the same of {_percent(shares)} of the images"
            lines.append(f"- judges: {words} (mean over trials).")
    if shares := _values(finished, "false_positives"):
        words = f"the recogniser refuses {_percent(shares)} of the images that the judge accepts"
        lines.append(f"- false positives: {words} (mean over trials).")
    return lines


def _cells(
    members: Sequence[TrialRecord], part: str, images: PerImage, report: Report
) -> dict[str, float | str]:
    """Return the columns of one setting and part; empty if nobody but the judge saw it."""
    first, fifth = accepted(part), accepted(part, 5)
    names = [name for name in further_judges(members) if _has(members, str(first.of_judge(name)))]
    recognised = {metric: str(METRICS[metric].on(part)) for metric in BY_RECOGNISER}
    if not names and not _has(members, recognised["recogniser_accepted"]):
        return {}
    every = {JUDGE: first} | {name: first.of_judge(name) for name in names}
    metrics = {name: str(metric) for name, metric in every.items()}
    cells: dict[str, float | str] = {}
    for name, metric in metrics.items():
        cells |= _column(name, mean_and_half(members, metric, images, report))
    if names:
        cells |= _column(EVERY, _over_judges(members, metrics, images, report))
    columns = {f"top-5 {JUDGE}": str(fifth)} | {f"top-5 {name}": str(fifth.of_judge(name)) for name in names}
    for metric in ("agreement", "kappa"):
        full = METRICS[metric].on(part)
        columns |= {f"{metric} {name}": str(full.of_judge(name)) for name in names}
    columns |= {RECOGNISER[metric]: full for metric, full in recognised.items()}
    columns |= {"false accepts": "recogniser/false_accepts", "false rejects": "recogniser/false_rejects"}
    for column, full_name in columns.items():
        if _has(members, full_name):
            cells |= _column(column, mean_and_half(members, full_name, images, report))
    return cells


def _bounds(part: str, bound: str) -> dict[str, str]:
    """Return the columns of a bound's row -> its metric."""
    own = {
        str(accepted(part)): JUDGE,
        str(METRICS["recogniser_top1"].on(part)): RECOGNISER["recogniser_top1"],
    }
    return {own[name]: metric for name, metric in bound_of(part, bound).items() if name in own}


def _over_judges(
    members: Sequence[TrialRecord], metrics: Mapping[str, str], images: PerImage, report: Report
) -> tuple[float, float]:
    """Return the mean over trials and judges with half its interval; NaN for that of one seed."""
    seen = [(record, name) for record in members for name in metrics if metrics[name] in record.metrics]
    axes = [replicate_of(record.axes, report.repeats) for record, _ in seen]
    own = [record.metrics[metrics[name]] for record, name in seen]
    kept = [images.by_class(record, metrics[name]) for record, name in seen]
    replicates = [one | {JUDGES: name} for one, (_, name) in zip(axes, seen, strict=True)]
    crossed = cross_replicates(replicates, kept, own, report)
    has_seeds = any(factor not in (CLASSES, JUDGES) for factor in crossed.resampled)
    return sum(own) / len(own), Uncertainty.of(crossed).half() if has_seeds else float("nan")


def further_judges(members: Sequence[TrialRecord]) -> list[str]:
    """Return the names of further judges in the order of their study."""
    labels = (label.partition(".") for record in members for label in record.stage_keys)
    return list(dict.fromkeys(name for stage, _, name in labels if stage == JUDGEMENT))


def _has(members: Sequence[TrialRecord], metric: str) -> bool:
    return any(metric in record.metrics for record in members)


def _values(records: Sequence[TrialRecord], metric: str, name: str = "") -> list[float]:
    """Return a metric of every trial and part that has it, of a further judge where one is named."""
    full = list(_names(metric, name))
    return [record.metrics[one] for record in records for one in full if one in record.metrics]


def _names(metric: str, name: str) -> Iterator[str]:
    for full in METRICS[metric].names():
        yield str(full.of_judge(name) if name else full)


def _percent(shares: Sequence[float]) -> str:
    return f"{100 * sum(shares) / len(shares):.0f} %"


def _column(name: str, mean_and_half: tuple[float, float]) -> dict[str, float | str]:
    return {name: mean_and_half[0], half_column(name): mean_and_half[1]}

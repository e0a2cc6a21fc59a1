"""Marks of rows: numbers that read images the adversary held, attacks answered with more than the release.

`sweep/adversary.py` says what the adversary of a trial had; this module writes it in tables, claims, notes
and captions. A table has the columns where some row has the mark.
"""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from orchestrator.metrics.names import MetricName
from orchestrator.sweep.adversary import BEYOND, HELD, held_words
from orchestrator.sweep.records import TrialRecord

MEANING = "held: the adversary itself had the private images that metrics of this part read"
SHOWN = "held: the adversary itself had these private images"
ON_HELD = "on images that the adversary held"


def held_column(records: Iterable[TrialRecord]) -> dict[str, object]:
    """Return the column `held` of a row about these trials."""
    return {HELD: held_words(part for record in records for part in record.held)}


def held_by_metric(records: Iterable[TrialRecord], metric: str) -> dict[str, object]:
    """Return the column `held` of a row about one metric of these trials; raise `Refused` for an unknown
    one."""
    part = MetricName.parse(metric).part
    return {HELD: held_words(part for record in records if part in record.held)}


def marks(records: Sequence[TrialRecord]) -> dict[str, object]:
    """Return the columns of a row about these trials: held parts, and the most queries of a trial that were
    answered with more than the release."""
    return {**held_column(records), BEYOND: str(_queries(records) or "")}


def without_empty(table: pd.DataFrame, marked: Sequence[str] = (HELD, BEYOND)) -> pd.DataFrame:
    """Return a table without those columns of marks, of text, that no row has."""
    empty = [name for name in marked if name in table and (table[name] == "").all()]
    return table.drop(columns=empty)


def caption(columns: Iterable[str]) -> str:
    """Return the line below a table that has the column `held`; empty for others."""
    return MEANING if HELD in columns else ""


def reads_held(record: TrialRecord, metric: str) -> bool:
    """Return whether a metric of a trial reads images that its adversary held; raise `Refused` for an unknown
    metric."""
    return MetricName.parse(metric).part in record.held


def claimed(claim: str, metric: str, sides: Mapping[str, Sequence[TrialRecord]]) -> str:
    """Return an ordering's claim, which says so if the metric reads held images on one side (a value of the
    compared axis -> its trials) or on all."""
    held = [side for side, records in sides.items() if any(reads_held(one, metric) for one in records)]
    if not held:
        return claim
    which = "" if len(held) == len(sides) else f" ({', '.join(held)})"
    return f"{claim}, {ON_HELD}{which}"


def remarks(metric: str, records: Sequence[TrialRecord]) -> list[str]:
    """Return what a row on a metric of these trials notes."""
    held = [ON_HELD] if any(reads_held(one, metric) for one in records) else []
    return [*held, *beyond([("", records)])]


def beyond(sides: Iterable[tuple[str, Sequence[TrialRecord]]]) -> list[str]:
    """Return a remark for each side, a value of the compared axis or none, whose attack was answered with
    more than the release; one for all sides where they agree."""
    counted = {f"{side}: " if side else "": _queries(records) for side, records in sides}
    if len(set(counted.values())) == 1:
        counted = {"": next(iter(counted.values()))}
    return [f"{side}{queries} queries beyond the release" for side, queries in counted.items() if queries]


def row_label(label: str, columns: Mapping[str, Sequence[str]]) -> str:
    """Return the label of a row of pictures with the held parts (column -> parts of its trial that are
    shown), by column where they differ."""
    words = {column: held_words(parts) for column, parts in columns.items()}
    if len(set(words.values())) == 1:
        words = {"": next(iter(words.values()))}
    held = ", ".join(f"{parts} of {column}" if column else parts for column, parts in words.items() if parts)
    return f"{label}, {HELD}: {held}" if held else label


def note_lines(records: Sequence[TrialRecord]) -> list[str]:
    """Return lines of Markdown about all trials: how many read held images, how many were answered beyond the
    release."""
    lines = []
    for part in dict.fromkeys(part for record in records for part in record.held):
        number = sum(part in record.held for record in records)
        words = f"metrics of the part `{part}` read images that the adversary held"
        lines.append(f"- held images: in {number} of {len(records)} trials {words}.")
    number = sum(record.metrics.get(BEYOND, 0) > 0 for record in records)
    if number:
        words = "trains on scores that the service does not release"
        lines.append(f"- beyond the release: in {number} of {len(records)} trials the attack {words}.")
    return lines


def _queries(records: Iterable[TrialRecord]) -> int:
    """Return the most queries of a trial that were answered with more than the release."""
    return max((int(record.metrics.get(BEYOND, 0)) for record in records), default=0)

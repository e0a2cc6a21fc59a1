"""From records to what people read: results table, summary over seeds, heat maps and the study's picture.

Everything is a function of the records, so the same sweep gives the same bytes. Costs and times are left out
of the results table on purpose: they differ from run to run.
"""

import io
import itertools
import json
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from orchestrator.artifacts import Artifacts
from orchestrator.metrics import describe
from orchestrator.records import Scalar, TrialRecord
from orchestrator.study import Study

SEED = "seed"
CONFIDENCE = 0.95
DIGITS = 6  # significant digits of the CSV


def results_table(records: Sequence[TrialRecord]) -> pd.DataFrame:
    """Return one row for each trial in the study's order: name, swept axes, status, metrics, error."""
    rows = []
    for record in sorted(records, key=lambda one: one.index):
        row: dict[str, object] = {"trial": record.name, **record.axes, "status": record.status}
        row |= dict(record.metrics) if record.status == "finished" else {}
        row |= {"failed_stage": record.failed_stage, "error": record.error}
        rows.append(row)
    table = pd.DataFrame(rows)
    last = ["failed_stage", "error"]
    return table[[name for name in table.columns if name not in last] + last]


def csv(table: pd.DataFrame) -> bytes:
    """Return the table as CSV with six significant digits."""
    return table.to_csv(index=False, float_format=f"%.{DIGITS}g", lineterminator="\n").encode()


def parquet(table: pd.DataFrame) -> bytes:
    """Return the table as parquet; axes with mixed types become text."""
    mixed = {
        name: str
        for name in table.columns
        if table[name].map(type).nunique() > 1 and table[name].dtype == object
    }
    buffer = io.BytesIO()
    table.astype(mixed).to_parquet(buffer, index=False)
    return buffer.getvalue()


def summary_table(records: Sequence[TrialRecord], metrics: Sequence[str]) -> pd.DataFrame:
    """Return mean and half-width of the 95 % t-interval over seeds; one seed has no interval."""
    finished = [record for record in records if record.status == "finished"]
    groups: dict[tuple[tuple[str, Scalar], ...], list[TrialRecord]] = {}
    for record in sorted(finished, key=lambda one: one.index):
        groups.setdefault(tuple((a, v) for a, v in record.axes.items() if a != SEED), []).append(record)
    rows = []
    for setting, members in groups.items():
        row: dict[str, object] = {**dict(setting), "seeds": len(members)}
        for metric in metrics:
            values = [member.metrics[metric] for member in members if metric in member.metrics]
            row[metric], row[f"{metric} +-"] = _mean_and_interval(values)
        rows.append(row)
    return pd.DataFrame(rows)


def report_files(study: Study, records: Sequence[TrialRecord], store: Artifacts) -> dict[str, bytes]:
    """Return every file of the report by its path."""
    table = results_table(records)
    objective, _ = study.objective
    metrics = list(dict.fromkeys([*study.search.objectives, *study.report.metrics]))
    files = {
        "results.csv": csv(table),
        "results.parquet": parquet(table),
        "summary.csv": csv(summary_table(records, metrics)),
        "study.yaml": study.yaml().encode(),
    }
    if any(record.status == "finished" for record in records):
        files |= heat_maps(records, objective)
        if study.report.rows:
            files["figure.png"] = picture(study, records, store)
    if len(study.search.objectives) > 1:
        files["pareto.csv"] = csv(results_table(pareto_front(records, study.search.objectives)))
    return files


def pareto_front(records: Sequence[TrialRecord], objectives: Mapping[str, str]) -> list[TrialRecord]:
    """Return the finished trials that no other one beats in every objective."""
    finished = [r for r in records if r.status == "finished" and all(m in r.metrics for m in objectives)]

    def losses(record: TrialRecord) -> tuple[float, ...]:
        return tuple(
            record.metrics[m] * (-1.0 if direction == "maximize" else 1.0)
            for m, direction in objectives.items()
        )

    def is_beaten(one: TrialRecord) -> bool:
        own = losses(one)
        return any(
            all(a <= b for a, b in zip(losses(other), own, strict=True)) and losses(other) != own
            for other in finished
        )

    return [record for record in finished if not is_beaten(record)]


def heat_maps(records: Sequence[TrialRecord], metric: str) -> dict[str, bytes]:
    """Return one PNG for each pair of swept axes: the metric's mean over everything else."""
    rows = [
        {**r.axes, "value": r.metrics[metric]}
        for r in records
        if r.status == "finished" and metric in r.metrics
    ]
    if not rows:
        return {}
    table = pd.DataFrame(rows)
    axes = [
        name
        for name in table.columns
        if name not in ("value", SEED) and table[name].nunique(dropna=False) > 1
    ]
    return {
        f"heatmap-{_plain(one)}-{_plain(other)}.png": _heat_map(table, one, other, metric)
        for one, other in itertools.combinations(axes, 2)
    }


def picture(study: Study, records: Sequence[TrialRecord], store: Artifacts) -> bytes:
    """Return the papers' figure: the victim's test images on top, a row of reconstructions per setting."""
    rows = _picture_rows(study, records)
    loaded = [(label, *_pictures(record, store)) for label, record in rows]
    columns = min(study.report.columns, *(len(images) for _, _, images in loaded))
    figure = Figure(figsize=(0.62 * columns + 3.0, 0.66 * (len(rows) + 1)), dpi=120, layout="constrained")
    grid = figure.subplots(len(rows) + 1, columns, squeeze=False)
    lines = [("victim", loaded[0][1])] + [(label, images) for label, _, images in loaded]
    for axes, (label, images) in zip(grid, lines, strict=True):
        for column, axis in enumerate(axes):
            image = images[column].transpose(1, 2, 0)
            axis.imshow(image if image.shape[2] == 3 else image[:, :, 0], cmap="gray", vmin=0, vmax=255)
            axis.set_axis_off()
        axes[0].text(-0.15, 0.5, label, transform=axes[0].transAxes, ha="right", va="center", fontsize=9)
    return _png(figure)


def _picture_rows(study: Study, records: Sequence[TrialRecord]) -> list[tuple[str, TrialRecord]]:
    """Pick the first finished trial of each combination of row axes where other axes are as asked."""
    wanted = study.report.where
    rows: dict[str, TrialRecord] = {}
    for record in sorted(records, key=lambda one: one.index):
        fits = all(
            str(record.axes.get(axis)) == str(value) for axis, value in wanted.items() if axis in record.axes
        )
        if record.status == "finished" and fits:
            label = ", ".join(
                _words(axis, record.axes[axis]) for axis in study.report.rows if axis in record.axes
            )
            rows.setdefault(label, record)
    if not rows:
        raise ValueError(
            f"report.where={dict(wanted)} fits no finished trial; name swept axes and their values."
        )
    return list(rows.items())


def _pictures(record: TrialRecord, store: Artifacts) -> tuple[np.ndarray, np.ndarray]:
    """Return the victim's and the rebuilt test images, each (n, C, S, S) uint8."""
    artifact = store.find(record.stage_keys["evaluation"])
    if artifact is None:
        raise ValueError(f"trial {record.name}: its evaluation left the store; run the sweep again.")
    names = ("victims_test.npy", "reconstructions_test.npy")
    first, second = (np.load(io.BytesIO(store.read(artifact, name)), allow_pickle=False) for name in names)
    return first, second


def _heat_map(table: pd.DataFrame, one: str, other: str, metric: str) -> bytes:
    """Draw means with the number in each cell; combinations that were not run stay empty."""
    means = table.pivot_table(index=one, columns=other, values="value", aggfunc="mean", sort=False)
    means = means.reindex(index=list(dict.fromkeys(table[one])), columns=list(dict.fromkeys(table[other])))
    values = means.to_numpy(dtype=float)
    figure = Figure(
        figsize=(1.3 * values.shape[1] + 2.6, 0.7 * values.shape[0] + 1.6), dpi=120, layout="constrained"
    )
    axis = figure.subplots()
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    image = axis.imshow(values, cmap="viridis", aspect="auto", vmin=low, vmax=high)
    axis.set_xticks(range(values.shape[1]), [str(name) for name in means.columns])
    axis.set_yticks(range(values.shape[0]), [str(name) for name in means.index])
    axis.set_xlabel(other)
    axis.set_ylabel(one)
    axis.set_title(f"{metric} ({describe(metric)})", fontsize=9)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            is_light = value > low + 0.6 * (high - low)
            axis.text(
                column, row, f"{value:.4g}", ha="center", va="center", color="black" if is_light else "white"
            )
    figure.colorbar(image)
    return _png(figure)


def _mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return float("nan"), float("nan")
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan")
    error = float(stats.sem(values))
    return mean, error * float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))


def _words(axis: str, value: Scalar) -> str:
    if axis == "align":
        return "aligned" if value else "not aligned"
    return str(value) if isinstance(value, str) and axis in ("auxiliary", "budget") else f"{axis}={value}"


def _plain(name: str) -> str:
    return name.replace(".", "-").replace("_", "-")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "fixed"}):
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def note(study: Study, records: Sequence[TrialRecord]) -> str:
    """Return Markdown for the parent run: what was swept and the best point."""
    objective, is_larger_better = study.objective
    finished = [record for record in records if record.status == "finished" and objective in record.metrics]
    lines = [f"**{study.study}**: {study.about}", "", "| axis | values |", "| --- | --- |"]
    lines += [f"| {axis} | {', '.join(map(str, values))} |" for axis, values in study.axes().items()]
    if finished:
        best = (max if is_larger_better else min)(finished, key=lambda one: one.metrics[objective])
        lines += ["", f"Best `{objective}`: {best.metrics[objective]:.4g} in `{best.name}`."]
    failed = [record for record in records if record.status == "failed"]
    lines += [f"- failed: `{record.name}` in {record.failed_stage}: {record.error}" for record in failed]
    return "\n".join([*lines, "", f"Objectives: `{json.dumps(study.search.objectives)}`"])

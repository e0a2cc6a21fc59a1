"""The pictures of a sweep: a heat map for each pair of swept axes, and the papers' reconstruction grid."""

import io
import itertools
import logging
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from orchestrator.artifacts import Artifacts, Corrupt
from orchestrator.metrics import describe
from orchestrator.records import Scalar, TrialRecord
from orchestrator.study import Study

logger = logging.getLogger(__name__)

SEED = "seed"


def heat_maps(records: Sequence[TrialRecord], metric: str) -> dict[str, bytes]:
    """Return one PNG for each pair of swept axes: the metric's mean over settings that all cells share.

    Cells of a sweep of several grids may hold different settings of the other axes; a mean over whatever is
    there would compare unlike things. A pair whose cells share nothing has no map.
    """
    rows = [
        {**r.axes, "value": r.metrics[metric]}
        for r in sorted(records, key=lambda one: one.index)  # not in the order in which trials ended
        if r.status == "finished" and metric in r.metrics
    ]
    if not rows:
        return {}
    table = pd.DataFrame(rows)
    axes = [name for name in table.columns if name != "value" and table[name].nunique(dropna=False) > 1]
    maps = {}
    for one, other in itertools.combinations([name for name in axes if name != SEED], 2):
        matched = matched_settings(table, one, other, [a for a in axes if a not in (one, other)])
        if not matched.empty:
            maps[f"heatmap-{_plain(one)}-{_plain(other)}.png"] = _heat_map(matched, one, other, metric)
    return maps


def matched_settings(table: pd.DataFrame, one: str, other: str, rest: Sequence[str]) -> pd.DataFrame:
    """Return the rows whose other axes take values that every (one, other) cell has."""
    settings = pd.Series(list(table[list(rest)].itertuples(index=False, name=None)), index=table.index)
    cells = [set(part) for _, part in settings.groupby([table[one], table[other]])]
    return table[settings.isin(set.intersection(*cells))].assign(setting=settings)


def picture(study: Study, records: Sequence[TrialRecord], store: Artifacts) -> bytes | None:
    """Return the papers' figure: the victim's test images on top, a row of reconstructions per setting.

    None, with a warning, where no finished trial is as `report.where` asks: the tables stand alone.
    """
    rows = _picture_rows(study, records)
    if not rows:
        logger.warning("event=no_picture report.where=%s reason=fits no finished trial", study.report.where)
        return None
    try:
        loaded = [(label, *_pictures(record, store)) for label, record in rows]
    except Corrupt as error:  # quarantined: the next start rebuilds it and draws
        logger.warning("event=no_picture reason=%s", error)
        return None
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
    records = sorted(records, key=lambda one: one.index)
    values = {axis: list(dict.fromkeys(r.axes.get(axis) for r in records)) for axis in study.report.rows}
    rows: dict[str, TrialRecord] = {}
    for record in sorted(records, key=lambda r: [seen.index(r.axes.get(a)) for a, seen in values.items()]):
        fits = all(
            str(record.axes.get(axis)) == str(value) for axis, value in wanted.items() if axis in record.axes
        )
        if record.status == "finished" and fits:
            label = ", ".join(
                _words(axis, record.axes[axis]) for axis in study.report.rows if axis in record.axes
            )
            rows.setdefault(label, record)
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
    shared = f"mean of {table['setting'].nunique()} settings that every cell has"
    axis.set_title(f"{metric}\n{describe(metric)}\n{shared}", fontsize=8)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            is_light = value > low + 0.6 * (high - low)
            axis.text(
                column, row, f"{value:.4g}", ha="center", va="center", color="black" if is_light else "white"
            )
    figure.colorbar(image)
    return _png(figure)


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

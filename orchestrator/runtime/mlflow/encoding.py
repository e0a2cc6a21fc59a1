"""Encoding of records for MLflow: params, metric points, tags, dataset inputs, files. Imports no MLflow."""

import hashlib
import io
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import yaml
from PIL import Image

from orchestrator.config.base import Scalar
from orchestrator.metrics.skill import unbeaten_words
from orchestrator.sweep.adversary import HELD, held_words, trial_note
from orchestrator.sweep.inferred import bounds_of_classes
from orchestrator.sweep.points import flatten
from orchestrator.sweep.records import DatasetInput, SweepRecord, SweepReport, TrialRecord

MAX_PARAM, MAX_TAG, MAX_KEY = 6000, 8000, 250  # characters MLflow keeps
Box = tuple[int, int]
"""Pixels across and down. A card shows its copy of a picture unscaled, in the middle of a square as wide as
the run's name; what is larger is cut on a screen of 1280. A click opens the picture itself."""

PREVIEW: Box = (250, 150)  # most of a trial's pictures, with room for a scroll bar below a long name
MAP_PREVIEW: Box = (250, 180)  # most of a heat map
MAX_WORDS, MAX_WORD = 3, 40  # overrides in a sweep's name, letters of each
MAP = "heatmap-"
WALL = "cost/wall_seconds"

HELD_TAG = f"inversion.{HELD}"
UNBEATEN_TAG = "inversion.no_better_than"
NOTE_TAG = "mlflow.note.content"
UNBEATEN_NOTE = "No better than a yardstick: "

MetricPoint = tuple[str, float, int, int]  # name, value, timestamp in ms, step


def digest(trial: TrialRecord) -> str:
    """Return the SHA-256 of everything in the record."""
    return _sha256(trial.plain())


def report_digest(report: SweepReport, trials: Sequence[TrialRecord]) -> str:
    """Return the SHA-256 of what the parent run shows, without its end time."""
    files = {name: hashlib.sha256(content).hexdigest() for name, content in report.files.items()}
    models = [one.key for one in report.models]
    plain = asdict(replace(report, models=())) | {"files": files, "ended_ms": 0, "models": models}
    plain["trials"] = [digest(trial) for trial in trials]
    return _sha256(plain)


def sweep_name(sweep: SweepRecord) -> str:
    """Return the name of a sweep's run: study, scale, overrides without the middle of their path, size.

    For example `demo (smoke, attack.epochs=8, 12 trials)`.
    """
    words = [_short(one) for one in sweep.overrides]
    more = [f"{len(words) - MAX_WORDS} more"] if len(words) > MAX_WORDS else []
    size = f"{sweep.num_points} trial{'s' if sweep.num_points != 1 else ''}"
    inside = [*([sweep.scale] if sweep.scale else []), *words[:MAX_WORDS], *more, size]
    return f"{sweep.study} ({', '.join(inside)})"


def _short(override: str) -> str:
    path, _, value = override.partition("=")
    parts = path.strip().removeprefix("base.").removeprefix("sweep.").split(".")
    text = f"{'.'.join(dict.fromkeys([parts[0], parts[-1]]))}={value.strip()}"
    return text if len(text) <= MAX_WORD else f"{text[: MAX_WORD - 3]}..."


def sweep_tags(sweep: SweepRecord) -> dict[str, str]:
    """Return what a sweep's run is marked with: objective, axes, how the study was called."""
    axes = json.dumps({axis: list(values) for axis, values in sweep.axes.items()})
    found = {"inversion.objective": sweep.objective, "inversion.axes": axes}
    found |= {"inversion.scale": sweep.scale or "none", "inversion.overrides": " ".join(sweep.overrides)}
    return {name: value[:MAX_TAG] for name, value in found.items()}


def sweep_params(sweep: SweepRecord) -> dict[str, str]:
    """Return the values of each axis, and the base of the resolved study under `base.`.

    All are in the sweep's key, so they never change.
    """
    base = (yaml.safe_load(sweep.study_yaml) or {}).get("base", {})
    flat = {f"base.{name}": str(value) for name, value in flatten(base).items()}
    axes = {axis: ", ".join(map(str, values)) for axis, values in sweep.axes.items()}
    return {key(name): value[:MAX_PARAM] for name, value in {**flat, **axes}.items() if value}


def ended_ms(trial: TrialRecord, base_ms: int) -> int:
    """Return the end of a trial's run that began at `base_ms`, both in Unix milliseconds: after the seconds
    that its stages took, shared ones in full. They may have run long before, or been waited for.
    """
    return base_ms + max(0, round(1000 * trial.costs.get(WALL, 0.0)))


def params(trial: TrialRecord) -> dict[str, str]:
    """Return the flattened spec and the axes under their short names."""
    return {key(name): str(value)[:MAX_PARAM] for name, value in {**trial.params, **trial.axes}.items()}


def points(trial: TrialRecord, base_ms: int) -> list[MetricPoint]:
    """Return every metric point at fixed times; MLflow keeps equal points once."""
    curves = [
        (key(curve.name), float(value), base_ms + step, step)
        for curve in trial.curves
        for step, value in curve.values
    ]
    return [*_finals(trial, base_ms), *curves]


def _finals(trial: TrialRecord, base_ms: int) -> list[MetricPoint]:
    """Return metrics and costs; one that is named like a curve would be a point of it, so it is renamed."""
    curves = {curve.name for curve in trial.curves}
    values = {**trial.metrics, **trial.costs}
    return [
        (key(f"{name}.final" if name in curves else name), float(value), base_ms, 0)
        for name, value in values.items()
    ]


def latest(trial: TrialRecord, base_ms: int) -> dict[str, float]:
    """Return the value per metric that MLflow shows: the one of the last step."""
    ordered = sorted(points(trial, base_ms), key=lambda point: (point[3], point[2]))
    return {name: value for name, value, _, _ in ordered}


def tags(trial: TrialRecord) -> dict[str, str]:
    """Return the fields that are not compared: status, stage keys, error, yardsticks not beaten."""
    found = {f"inversion.stage.{name}": stage for name, stage in trial.stage_keys.items()}
    found |= {"inversion.status": trial.status, "inversion.index": str(trial.index)}
    if trial.failed_stage is not None:
        found["failed_stage"] = trial.failed_stage
    if trial.error is not None:
        found["error"] = trial.error
    unbeaten = unbeaten_words(trial.metrics)
    if unbeaten:
        found[UNBEATEN_TAG] = unbeaten
    if trial.held:
        found[HELD_TAG] = held_words(trial.held)
    notes = [trial_note(trial), f"{UNBEATEN_NOTE}{unbeaten}." if unbeaten else ""]
    if any(notes):
        found[NOTE_TAG] = " ".join(filter(None, notes))
    if trial.images:
        found["mlflow.loggedImages"] = "True"  # makes the pages look for pictures
    return {key(name): value[:MAX_TAG] for name, value in found.items()}


def stale_tags(trial: TrialRecord, known: Mapping[str, str]) -> set[str]:
    """Return those of a run's tags that the trial had and has no more; a note that a user wrote stays."""
    ours = {"error", "failed_stage", UNBEATEN_TAG}
    if UNBEATEN_NOTE in known.get(NOTE_TAG, ""):
        ours.add(NOTE_TAG)
    return ours & known.keys() - tags(trial).keys()


def dataset_fields(data: DatasetInput) -> dict[str, str]:
    """Return the fields of MLflow's dataset entity."""
    is_s3 = data.source.startswith("s3://")
    return {
        "name": data.name[:500],
        "digest": data.digest[:36],  # MLflow's column is that wide
        "source_type": "s3" if is_s3 else "local",
        "source": json.dumps({"uri": data.source}),
        "schema": "",
        "profile": json.dumps({"num_rows": data.num_images, "num_classes": data.num_classes}),
    }


def picture_files(trial: TrialRecord, run_id: str, base_ms: int) -> dict[str, bytes]:
    """Return path -> bytes, named as by `MlflowClient.log_image`, but with the same names every time.

    `log_image` puts a fresh random id into the name: a crash between its two files leaves half a picture.
    """
    images = {name: one.read() for name, one in trial.images.items()}
    return _pictures(images, run_id, base_ms, PREVIEW)


def map_files(report: SweepReport, run_id: str, base_ms: int) -> dict[str, bytes]:
    """Return path -> bytes of the report's heat maps, as pictures of the parent run."""
    return _pictures(heat_maps(report), run_id, base_ms, MAP_PREVIEW)


def heat_maps(report: SweepReport) -> dict[str, bytes]:
    """Return key of a picture -> PNG of the report's heat maps."""
    found = {name.removeprefix("report/").removesuffix(".png"): png for name, png in report.files.items()}
    return {f"means/{name[len(MAP) :]}": png for name, png in found.items() if name.startswith(MAP)}


def _pictures(images: Mapping[str, bytes], run_id: str, base_ms: int, box: Box) -> dict[str, bytes]:
    files = {}
    for name, png in images.items():
        fixed = uuid.uuid5(uuid.NAMESPACE_OID, f"{run_id}/{name}")
        stem = f"images/{key(name).replace('/', '~').replace(':', '-')}+step+0+timestamp+{base_ms}+{fixed}"
        files[f"{stem}.png"] = png
        files[f"{stem}+compressed.webp"] = _preview(png, box)
    return files


def _preview(png: bytes, box: Box) -> bytes:
    with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
        factor = min(most / side for most, side in zip(box, picture.size, strict=True))
        width, height = (max(1, round(side * factor)) for side in picture.size)
        way = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BILINEAR
        small = picture.convert("RGB").resize((width, height), way)
    file = io.BytesIO()
    small.save(file, format="WEBP")
    return file.getvalue()


def report_files(sweep: SweepRecord, report: SweepReport, trials: Sequence[TrialRecord]) -> dict[str, bytes]:
    """Return path -> bytes of the parent run: study, report, table of trials."""
    files = {f"report/{name.removeprefix('report/')}": content for name, content in report.files.items()}
    files["study.yaml"] = sweep.study_yaml.encode()
    files["tables/trials.json"] = trials_table(sweep, trials)
    return files


def trials_table(sweep: SweepRecord, trials: Sequence[TrialRecord]) -> bytes:
    """Return the table page's JSON; its first column must be the name, the page groups by it.

    Below the trials of class inference are ceiling and floor of what their judges recognise.
    """
    ordered = sorted(trials, key=lambda trial: trial.index)
    metrics = sorted({name for trial in ordered for name in trial.metrics})
    held = [HELD] if any(trial.held for trial in ordered) else []
    columns = ["trial", "status", *sweep.axes, *held, *metrics]
    rows: list[list[Scalar | None]] = [
        [trial.name, trial.status, *(trial.axes.get(axis) for axis in sweep.axes)]
        + [held_words(trial.held) for _ in held]
        + [_finite(trial.metrics, name) for name in metrics]
        for trial in ordered
    ]
    rows += [
        [label, "", *(axes.get(axis) for axis in sweep.axes), *("" for _ in held)]
        + [_finite(values, name) for name in metrics]
        for label, axes, values in bounds_of_classes(ordered)
    ]
    return json.dumps({"columns": columns, "data": rows}).encode()


def _finite(values: Mapping[str, float], name: str) -> float | None:
    value = values.get(name)
    return value if value is not None and abs(value) < float("inf") else None  # JSON has no NaN


def key(name: str) -> str:
    """Return the name in the characters that MLflow takes."""
    return re.sub(r"[^\w\-./ :]", "_", name, flags=re.ASCII)[:MAX_KEY]


def _sha256(value: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()

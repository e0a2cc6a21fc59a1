"""The command `rm` of `jobs.store`: forget a sweep, or everything computed from a data set."""

import importlib
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal

from jobs.options import Out as OutFolder
from jobs.options import Store, TrackingUri
from jobs.store_output import AsJson, DryRun, Out, opened, refusing
from orchestrator.api.options import RUNS
from orchestrator.api.report_folder import folders_of
from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.report.user_study.key import files_of_sweep
from orchestrator.runtime.http import redact
from orchestrator.runtime.mlflow.check import check_tracking, set_environment
from orchestrator.runtime.mlflow.database import sqlite_path
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.blobs import Blobs
from orchestrator.store.removal import Removal, of_dataset, of_sweep, one_sweep, remove, sweep_needs

if TYPE_CHECKING:
    from orchestrator.runtime.mlflow.removal import RemovedRuns


def rm(
    dataset: Annotated[
        str | None, typer.Option(help="Remove all that was computed from this data set.")
    ] = None,
    sweep: Annotated[
        str | None, typer.Option(help="Remove the sweep with this key, or its first characters.")
    ] = None,
    dry_run: DryRun = False,
    store: Store = None,
    out: OutFolder = RUNS,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Remove a sweep, or all that was computed from a data set, MLflow's runs and pictures included.

    Artifacts that another sweep needs stay when a sweep is removed. The data set itself and nodes' caches of
    it are not touched. Stop sweeps that use these first.
    """
    printer = Out(as_json=as_json)
    with refusing():
        uri = tracking_uri or f"sqlite:///{out / 'mlflow.db'}"
        check_tracking(uri)
        artifacts = opened(store or str(out / "store"))
        removal = _chosen(artifacts, dataset, sweep)
        runs = _remove_runs(uri, removal, dataset, dry_run=dry_run)
        copies = _copies(artifacts.blobs, removal, out)
        if not (removal.entries or copies or (runs and runs.num_runs)):
            rule = f"has nothing computed from it in {artifacts.blobs.uri} or MLflow"
            raise Refused("dataset", dataset, rule, "`ls --sweeps` lists the sweeps")
        if not dry_run:
            _remove_copies(copies)
            remove(artifacts.blobs, removal)
    _show(printer, uri, removal, runs, copies, dry_run=dry_run)


def _chosen(artifacts: Artifacts, dataset: str | None, sweep: str | None) -> Removal:
    """Return what belongs to the sweep or the data set; raise `Refused` unless one of them is given."""
    sweeps = sweep_needs(artifacts.blobs)
    if sweep is not None and dataset is None:
        return of_sweep(artifacts, one_sweep(sweeps, sweep), sweeps)
    if dataset is None or sweep is not None:
        raise Refused("--dataset and --sweep", NO_VALUE, "exclude each other, and one is needed", "give one")
    if not re.fullmatch(r"[\w.+-]+", dataset):
        raise Refused("dataset", dataset, "is no name of a data set", "give it as `data.dataset` does")
    return of_dataset(artifacts, dataset, sweeps)


def _remove_runs(uri: str, removal: Removal, dataset: str | None, *, dry_run: bool) -> "RemovedRuns | None":
    """Remove the runs from MLflow, which is imported only where there is one."""
    if uri.startswith("sqlite:") and not sqlite_path(uri).exists():
        return None
    set_environment()
    mlflow = importlib.import_module("orchestrator.runtime.mlflow.removal")
    removed: RemovedRuns = mlflow.remove_runs(
        uri, [one.key for one in removal.sweeps], dataset, dry_run=dry_run
    )
    return removed


def _copies(blobs: Blobs, removal: Removal, out: Path) -> list[Path]:
    """Return the files in `out` that equal a sweep's report in the store, those of user studies of its
    images, and its JSON folder."""
    found = []
    for sweep in removal.sweeps:
        folder = f"sweeps/{sweep.key}/report/"
        for entry in (entry for entry in removal.entries if entry.name.startswith(folder)):
            name, content = entry.name.removeprefix(folder), blobs.get(entry.name)
            paths = (place / name for place in folders_of(out, sweep.study))
            found += [path for path in paths if path.is_file() and path.read_bytes() == content]
        found += [path for place in folders_of(out, sweep.study) for path in files_of_sweep(place, sweep.key)]
        unshipped = out / "unshipped" / f"{sweep.study}-{sweep.key[:12]}"
        found += [unshipped] if sweep.study and unshipped.is_dir() else []
    return list(dict.fromkeys(found))  # two sweeps of a study may have the same report file


def _remove_copies(copies: list[Path]) -> None:
    for path in copies:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for folder in {path.parent for path in copies}:
        if not any(folder.iterdir()):
            folder.rmdir()


def _show(
    printer: Out, uri: str, removal: Removal, runs: "RemovedRuns | None", copies: list[Path], *, dry_run: bool
) -> None:
    printer.json(
        {
            "dry_run": dry_run,
            "sweeps": [{"key": one.key, "study": one.study} for one in removal.sweeps],
            "artifacts": list(removal.stages),
            "objects": len(removal.entries),
            "bytes": removal.num_bytes,
            "mlflow": runs and asdict(runs) | {"sweeps": sorted(runs.sweeps)},
            "files": [str(path) for path in copies],
        }
    )
    for sweep in removal.sweeps:
        printer.say(f"sweep {sweep.key[:12]} {sweep.study}")
    done = "would remove" if dry_run else "removed"
    counts = f"{len(removal.sweeps)} sweeps, {len(removal.stages)} artifacts, {decimal(removal.num_bytes)}"
    printer.say(f"{done} {counts}; {len(copies)} local files and folders of their reports")
    if runs is not None:
        printer.say(f"{done} {runs.num_runs} runs with their files from MLflow at {redact(uri)}")
        if not runs.is_final:
            printer.say("the server keeps the runs' values until `mlflow gc` runs there")

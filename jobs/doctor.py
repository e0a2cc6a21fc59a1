"""Say whether sweeps can run: `python -m jobs.doctor`, here or behind `ray job submit --working-dir . --`.

Checks libraries, store, data, MLflow and Ray with the options and the environment of `jobs.sweep`, prints a
line for each and, under whatever is wrong, how to mend it. No check waits longer than 15 s or stops another.

Exit code 0: nothing failed. 1: something did.
"""

import os
import sys
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestrator.runtime.doctor.checks import Places, checks
from orchestrator.runtime.doctor.findings import Finding, warn

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

RUNS = Path("runs")
STYLES = {"ok": "green", "warn": "yellow", "FAIL": "bold red"}


@app.command()
def doctor(
    store: Annotated[
        str | None, typer.Option(envvar="INVERSION_STORE", help="Artifacts: a folder or s3://bucket/prefix.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(envvar="INVERSION_DATA", help="Staged data sets: a folder or s3://bucket/prefix."),
    ] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow; default: sqlite in --out.")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(envvar="RAY_ADDRESS", help="A cluster to join: HEAD:6379, or auto.")
    ] = None,
    job_server: Annotated[
        str | None, typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="Its job server: http://HEAD:8265.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the default store and MLflow.")] = RUNS,
) -> None:
    """Check everything that a sweep needs and say how to mend what is wrong."""
    places = Places(
        store=store if store and "://" in store else str(Path(store or out / "store").absolute()),
        data=data or None,
        tracking=tracking_uri or f"sqlite:///{out / 'mlflow.db'}",
        ray=ray_address or None,
        job_server=job_server or None,
    )
    console = Console(highlight=False, soft_wrap=True)
    found = []
    for finding in chain(lost(store, ray_address), checks(places)):
        show(console, finding)
        found.append(finding)
    failed = sum(finding.status == "FAIL" for finding in found)
    warned = sum(finding.status == "warn" for finding in found)
    console.print(f"{len(found)} checks: {failed} failed, {warned} warnings")
    code = 1 if failed else 0
    if any(finding.is_late for finding in found):
        sys.stdout.flush()
        os._exit(code)  # what a check still waits for may keep its threads for minutes
    sys.exit(code)


def lost(store: str | None, ray_address: str | None) -> list[Finding]:
    """Warn of a default store on a cluster."""
    if store or not ray_address:
        return []
    name = "name one: --store s3://BUCKET/store, or a folder that every node mounts"
    return [warn("store", "none named; what a job writes to its own folder is lost with it", name)]


def show(console: Console, finding: Finding) -> None:
    """Print a finding, and under it the way out."""
    console.print(f"{finding.status:5}", style=STYLES[finding.status], end="")
    console.print(f" {finding.name:14} {finding.found}", markup=False)
    if finding.fix:
        console.print(f"      fix: {finding.fix}", markup=False)
    sys.stdout.flush()  # in a job or a pipe too: people watch it go


if __name__ == "__main__":
    app()

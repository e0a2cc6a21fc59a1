"""Checks before a sweep: `python -m jobs.doctor`, here or behind `ray job submit --working-dir . --`.

Checks libraries, store, data, MLflow and Ray with the options and the environment of `jobs.sweep`; prints a
line for each and, under a fault, its fix. No check stops another, or waits longer than 15 s; those of nodes
may take 70 s.

Exit code 0: nothing failed. 1: something did.
"""

import os
import sys
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestrator.runtime.doctor.findings import Finding, warn
from orchestrator.runtime.locations import Locations

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

RUNS = Path("runs")
STYLES = {"ok": "green", "warn": "yellow", "FAIL": "bold red"}


@app.command()
def doctor(
    store: Annotated[
        str | None,
        typer.Option(
            envvar="INVERSION_STORE", help="Check this store of artifacts; default: store in --out."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(envvar="INVERSION_DATA", help="Check these staged data sets; none by default."),
    ] = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option(envvar="MLFLOW_TRACKING_URI", help="Check this MLflow; default: sqlite in --out."),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(envvar="RAY_ADDRESS", help="Join this cluster: HEAD:6379 or auto; none by default."),
    ] = None,
    job_server: Annotated[
        str | None,
        typer.Option(
            envvar="RAY_API_SERVER_ADDRESS", help="Check this job server: http://HEAD:8265; none by default."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Look here for the default store and MLflow.")] = RUNS,
) -> None:
    """Check everything that a sweep needs; print every fault with its fix."""
    locations = Locations(
        store=store if store and "://" in store else str(Path(store or out / "store").absolute()),
        data=data or None,
        tracking=tracking_uri or f"sqlite:///{out / 'mlflow.db'}",
    )
    from orchestrator.runtime.doctor.checks import Cluster, checks  # here: boto3 is nothing for --help

    cluster = Cluster(ray_address or None, job_server or None)
    console = Console(highlight=False, soft_wrap=True)
    findings = []
    for finding in chain(lost(store, ray_address), checks(locations, cluster)):
        show(console, finding)
        findings.append(finding)
    failed = sum(finding.status == "FAIL" for finding in findings)
    warned = sum(finding.status == "warn" for finding in findings)
    console.print(f"{len(findings)} checks: {failed} failed, {warned} warnings")
    code = 1 if failed else 0
    if any(finding.is_late for finding in findings):
        sys.stdout.flush()
        os._exit(code)  # a check that hangs may keep its thread for minutes
    sys.exit(code)


def lost(store: str | None, ray_address: str | None) -> list[Finding]:
    """Return a warning if a cluster is named and the store is the default folder."""
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
    sys.stdout.flush()  # in a job or a pipe too: people follow the checks


if __name__ == "__main__":
    app()

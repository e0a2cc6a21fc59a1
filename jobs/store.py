"""Store maintenance: `python -m jobs.store ls|verify|gc`; `--store`, INVERSION_STORE as in `jobs.sweep`.

`ls` lists what is stored, `verify` reads all of it and quarantines damaged artifacts, `gc` removes what no
sweep needs. All may run while sweeps do.

Exit code 0: done. 1: something is damaged, or could not be removed. 2: refused, nothing was done.
"""

import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.metrics.names import measured
from orchestrator.runtime.open_store import check, open_blobs
from orchestrator.store import listing
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.gc import Garbage, collect
from orchestrator.store.listing import Checked

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MINIMUM_SECONDS = 600.0  # of --older-than: a publish that goes on now must be safe

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help=__doc__)

Store = Annotated[
    str, typer.Option(envvar="INVERSION_STORE", help="Use this store: a folder or s3://bucket/prefix.")
]
Key = Annotated[
    str | None, typer.Argument(help="Artifact's key, or its first characters; all artifacts by default.")
]
Stage = Annotated[str | None, typer.Option(help="Select the artifacts of this stage; all stages by default.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON; tables by default.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would change and change nothing.")]
RUNS_STORE = "runs/store"


@app.command()
def ls(
    key: Key = None,
    stage: Stage = None,
    sweeps: Annotated[bool, typer.Option("--sweeps", help="List sweeps; artifacts by default.")] = False,
    store: Store = RUNS_STORE,
    as_json: AsJson = False,
) -> None:
    """List artifacts by stage, those of one stage, one in full, or the sweeps."""
    out = Out(as_json=as_json)
    with refusing():
        if sum(map(bool, (key, stage, sweeps))) > 1:
            raise Refused("KEY, --stage and --sweeps", NO_VALUE, "exclude each other", "give one of them")
        artifacts = opened(store)
        if sweeps:
            _show_sweeps(out, artifacts)
        elif key:
            _show_one(out, artifacts, listing.one_key(artifacts, key))
        else:
            _show_many(out, artifacts, stage)


@app.command()
def verify(
    key: Key = None,
    stage: Stage = None,
    dry_run: DryRun = False,
    store: Store = RUNS_STORE,
    as_json: AsJson = False,
) -> None:
    """Read artifacts, compare size and SHA-256 of every file, quarantine the damaged ones."""
    out = Out(as_json=as_json)
    with refusing():
        artifacts = opened(store)
        keys = [listing.one_key(artifacts, key)] if key else artifacts.keys()
        if stage:
            keys = [key for key, one in listing.published(artifacts, keys) if one and one.stage == stage]
        checked = list(_watched(out, listing.verify(artifacts, keys, dry_run=dry_run), len(keys)))
    damaged = [one for one in checked if one.faults]
    lacking = sum(bool(one.missing_inputs) for one in checked)
    total = sum(one.num_bytes for one in checked)
    files = sum(one.num_files for one in checked)
    results = [asdict(one) for one in checked]
    out.json({"artifacts": len(checked), "files": files, "bytes": total, "found": results})
    out.say(f"verified {len(checked)} artifacts, {files} files, {decimal(total)}: {len(damaged)} damaged")
    if lacking:
        out.say(f"{lacking} name inputs that are not stored any more; what needs those computes them")
    if damaged and dry_run:
        out.say("nothing was changed; without --dry-run damaged artifacts are quarantined, as reads do")
    elif damaged:
        out.say("run the sweep again: what was damaged is built again, nothing else")
    sys.exit(1 if damaged else 0)


@app.command()
def gc(
    older_than: Annotated[
        str, typer.Option(help="Keep what is younger, such as 90m, 24h or 7d: a sweep may be publishing it.")
    ] = "24h",
    dry_run: DryRun = False,
    store: Store = RUNS_STORE,
    as_json: AsJson = False,
) -> None:
    """Remove files that no manifest names, checkpoints of published stages, writes never completed."""
    out = Out(as_json=as_json)
    with refusing():
        seconds = seconds_of(older_than)
        collected = collect(opened(store), older_than_seconds=seconds, dry_run=dry_run)
    out.json({**asdict(collected), "dry_run": dry_run})
    _show_garbage(out, collected.garbage, dry_run=dry_run)
    if collected.num_young:
        out.say(
            f"spared {collected.num_young} files that are not old enough; a publish may be about to name them"
        )
    if collected.unreadable:
        out.say(
            f"spared the files of {len(collected.unreadable)} artifacts whose manifests cannot be read; "
            "`python -m jobs.store verify` quarantines those"
        )
    sys.exit(1 if any(one.fault for one in collected.garbage) else 0)


class Out:
    """Prints tables, on a terminal with lines around them, or one JSON document."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(
            width=None if sys.stdout.isatty() else 160, highlight=False, quiet=as_json, soft_wrap=True
        )

    def json(self, document: Any) -> None:
        """Print a document under --json; infinities and NaN become strings."""
        if self.as_json:
            print(json.dumps(_plain(document), indent=2))

    def say(self, line: str, style: str | None = None) -> None:
        """Print a line of text, unless under --json."""
        self.console.print(line, markup=False, style=style)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows, unless under --json; a column whose name ends in `>` is aligned to the right."""
        if not rows:
            return
        if self.console.is_terminal:
            table = Table(title=title, title_justify="left")
            for name in columns:
                table.add_column(name.rstrip(">"), justify="right" if name[-1] == ">" else "left")
            for row in rows:
                table.add_row(*map(escape, row))
            self.console.print(table, soft_wrap=False)
            return
        names = [name.rstrip(">") for name in columns]
        widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
        self.say(title)
        for row in [names, *rows]:
            cells = zip(row, columns, widths, strict=True)
            line = (
                cell.rjust(width) if name[-1] == ">" else cell.ljust(width) for cell, name, width in cells
            )
            self.say(f"  {'  '.join(line)}".rstrip())


@contextmanager
def refusing() -> Iterator[None]:
    """Print a refusal, or the error of a store, as one line and exit with code 2."""
    try:
        yield
    except ValueError as error:
        lines = str(error).splitlines()
    except OSError as error:  # of a bucket `StoreError`, which has the way out
        where = f"{error.filename}: {error.strerror}; the store must be writable" if error.strerror else error
        lines = [f"store: {where}"]
    else:
        return
    for line in lines:
        print(f"error: {line}", file=sys.stderr)
    sys.exit(2)


def opened(uri: str) -> Artifacts:
    """Return the store; raise `Refused` if it cannot be read. What cannot be written fails when it is."""
    blobs = open_blobs(uri)
    check(blobs, writes=False)
    return Artifacts(blobs)


def seconds_of(text: str) -> float:
    """Return the seconds of `90m`, `24h` or `7d`; raise `Refused` for other texts and less than 10m."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if match is None:
        raise Refused("older_than", text, "must be a number and s, m, h or d", "use for example 24h")
    seconds = float(match[1]) * _SECONDS[match[2]]
    if seconds < MINIMUM_SECONDS:
        least = f"{MINIMUM_SECONDS / 60:g}m"
        rule = f"must be at least {least}, because a sweep may publish what is younger"
        raise Refused("older_than", text, rule, f"use {least} or more")
    return seconds


def _show_many(out: Out, store: Artifacts, stage: str | None) -> None:
    manifests = listing.published(store)
    readable = [artifact for _, artifact in manifests if artifact]
    num_unreadable = len(manifests) - len(readable)
    stages = listing.summary(readable)
    if stage is None:
        out.json({"stages": [asdict(one) for one in stages], "unreadable": num_unreadable})
        rows = [
            [one.stage, str(one.num_artifacts), decimal(one.num_bytes), _time(one.newest_ms)]
            for one in stages
        ]
        out.table(f"artifacts in {store.blobs.uri}", ["stage", "artifacts>", "size>", "newest (UTC)"], rows)
        total = sum(one.num_bytes for one in stages)
        out.say(f"{len(readable)} artifacts, {decimal(total)}, in {store.blobs.uri}")
    else:
        chosen = sorted((one for one in readable if one.stage == stage), key=lambda one: -one.created_ms)
        if not chosen:
            known = ", ".join(one.stage for one in stages) or "none"
            rule = f"has no artifacts in {store.blobs.uri}"
            raise Refused("stage", stage, rule, f"stored are: {known}")
        out.json([_in_short(one) for one in chosen])
        out.table(
            f"artifacts of {stage}",
            ["key", "created (UTC)", "size>", "seconds>", "main metric"],
            [_row(one) for one in chosen],
        )
    if num_unreadable:
        out.say(f"{num_unreadable} manifests cannot be read; `python -m jobs.store verify` quarantines them")


def _in_short(artifact: Artifact) -> dict[str, Any]:
    metric = listing.main_metric(artifact, measured())
    return {
        "key": artifact.key,
        "created_ms": artifact.created_ms,
        "bytes": listing.size(artifact),
        "wall_seconds": artifact.cost.get("wall_seconds"),
        "metric": metric and {"name": metric[0], "value": metric[1]},
    }


def _row(artifact: Artifact) -> list[str]:
    metric, seconds = listing.main_metric(artifact, measured()), artifact.cost.get("wall_seconds")
    words = f"{metric[0]} {metric[1]:.4g}" if metric else ""
    cost = "" if seconds is None else f"{seconds:.1f}"
    return [artifact.key[:12], _time(artifact.created_ms), decimal(listing.size(artifact)), cost, words]


def _show_one(out: Out, store: Artifacts, key: str) -> None:
    is_there, artifact = listing.peek(store.blobs, key)
    if not is_there or artifact is None:
        way_out = f"`python -m jobs.store verify {key}` quarantines it"
        raise Refused("key", key, "has a damaged manifest", way_out)
    out.json(json.loads(artifact.to_json()))
    out.say(f"{artifact.stage} {key}")
    out.say(
        f"version {artifact.version}, code {artifact.code_version}, created {_time(artifact.created_ms)} UTC"
    )
    files = sorted(artifact.files.values(), key=lambda file: (-file.size, file.name))
    rows = [[file.name, decimal(file.size), file.sha256[:12]] for file in files]
    out.table("files", ["name", "size>", "sha256"], rows)
    inputs = [[role, need, _is_stored(store, need)] for role, need in artifact.inputs.items()]
    out.table("inputs", ["role", "key", "stored"], inputs)
    for title, numbers in (("metrics", artifact.metrics), ("cost", artifact.cost)):
        out.table(title, ["name", "value>"], [[name, f"{value:.6g}"] for name, value in numbers.items()])
    for title, words in (("profile", artifact.profile), ("spec", artifact.spec)):
        out.say(f"{title}\n  " + "\n  ".join(yaml.safe_dump(words, sort_keys=False).rstrip().split("\n")))


def _is_stored(store: Artifacts, key: str) -> str:
    return "yes" if listing.peek(store.blobs, key)[0] else "no"


def _show_sweeps(out: Out, store: Artifacts) -> None:
    sweeps = listing.sweeps(store.blobs)
    out.json([asdict(one) for one in sweeps])
    rows = [
        [one.key[:12], one.study, str(one.num_points), str(one.num_ended), one.status, _time(one.last_ms)]
        for one in sweeps
    ]
    columns = ["sweep", "study", "points>", "ended>", "status", "last event (UTC)"]
    out.table(f"sweeps in {store.blobs.uri}", columns, rows)
    out.say(f"{len(sweeps)} sweeps in {store.blobs.uri}")


def _watched(out: Out, results: Iterator[Checked], count: int) -> Iterator[Checked]:
    """Yield the results; print each fault when it is found and, on a terminal, a progress bar."""
    columns = (TextColumn("verify"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    is_shown = out.console.is_terminal and not out.as_json
    with Progress(*columns, console=out.console, disable=not is_shown, transient=True) as progress:
        bar = progress.add_task("", total=count)
        for one in results:
            for fault in one.faults:
                where = " (quarantined)" if one.quarantined else ""
                out.say(f"damaged  {one.stage or '?'}  {one.key}  {fault}{where}", style="red")
            progress.advance(bar)
            yield one


def _show_garbage(out: Out, garbage: Sequence[Garbage], *, dry_run: bool) -> None:
    rows = [[one.kind, decimal(one.size), _time(one.modified_ms), one.name, one.fault] for one in garbage]
    out.table("garbage", ["kind", "size>", "modified (UTC)", "name", "not removed because"], rows)
    gone = [one for one in garbage if not one.fault]
    words = ", ".join(_count(gone, kind) for kind in dict.fromkeys(one.kind for one in gone)) or "nothing"
    total = decimal(sum(one.size for one in gone))
    out.say(f"{'would remove' if dry_run else 'removed'} {words}, {total}")


def _count(garbage: Sequence[Garbage], kind: str) -> str:
    number = sum(one.kind == kind for one in garbage)
    return f"{number} {kind}{'' if number == 1 else 's'}"


def _time(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M}"


def _plain(value: Any) -> Any:
    """Return a document with its NaN and infinities, which JSON lacks, as strings."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    app()

"""Store maintenance: `python -m jobs.store ls|verify|gc|rm`; `--store`, INVERSION_STORE as in `jobs.sweep`.

`ls` lists what is stored, `verify` reads all of it and quarantines damaged artifacts, `gc` removes what
nothing names and, with `--unused`, the artifacts that no sweep needs: all may run while sweeps do. `rm`
removes a sweep, or everything computed from a data set.

Exit code 0: done. 1: something is damaged, or could not be removed. 2: refused, nothing was done.
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
import yaml
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jobs.store_output import RUNS_STORE, AsJson, DryRun, Out, Store, opened, refusing
from jobs.store_removal import rm
from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.config.installation import to_call
from orchestrator.metrics.names import measured
from orchestrator.store import listing
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.gc import Garbage, collect
from orchestrator.store.listing import Checked
from orchestrator.store.removal import needed_stages

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MINIMUM_SECONDS = 600.0  # of --older-than: a publish that goes on now must be safe

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help=__doc__)
app.command()(rm)

Key = Annotated[
    str | None, typer.Argument(help="Artifact's key, or its first characters; all artifacts by default.")
]
Stage = Annotated[str | None, typer.Option(help="Select the artifacts of this stage; all stages by default.")]


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
    unused: Annotated[
        bool, typer.Option("--unused", help="Also remove artifacts that no sweep of the store needs.")
    ] = False,
    dry_run: DryRun = False,
    store: Store = RUNS_STORE,
    as_json: AsJson = False,
) -> None:
    """Remove files that no manifest names, checkpoints of published stages, writes never completed."""
    out = Out(as_json=as_json)
    with refusing():
        seconds, artifacts = seconds_of(older_than), opened(store)
        needed = needed_stages(artifacts.blobs) if unused else None
        collected = collect(artifacts, older_than_seconds=seconds, needed=needed, dry_run=dry_run)
    out.json({**asdict(collected), "dry_run": dry_run})
    _show_garbage(out, collected.garbage, dry_run=dry_run)
    if collected.num_young:
        out.say(
            f"spared {collected.num_young} files that are not old enough; a publish may be about to name them"
        )
    if collected.unreadable:
        out.say(
            f"spared the files of {len(collected.unreadable)} artifacts whose manifests cannot be read; "
            f"`{to_call('store', 'verify')}` quarantines those"
        )
    sys.exit(1 if any(one.fault for one in collected.garbage) else 0)


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
        out.say(f"{num_unreadable} manifests cannot be read; `{to_call('store', 'verify')}` quarantines them")


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
        way_out = f"`{to_call('store', 'verify', key)}` quarantines it"
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


if __name__ == "__main__":
    app()

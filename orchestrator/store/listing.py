"""What a store holds: artifacts by stage, one artifact in full, sweeps; and whether it is what was published.

Nothing here is changed but by `verify`, which quarantines what is damaged exactly as a read would do.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from orchestrator.store.artifacts import Artifact, Artifacts, Corrupt, File, manifest_name
from orchestrator.store.blobs import Blobs
from orchestrator.store.journal import Journal
from orchestrator.store.parallel import parallel_map

_READERS = 4  # each holds a whole file
_READS = 3  # damage on the way goes away, damage at rest stays


@dataclass(frozen=True)
class StageSummary:
    """The artifacts of one stage."""

    stage: str
    num_artifacts: int
    num_bytes: int  # of the files that manifests name
    newest_ms: int  # Unix milliseconds


@dataclass(frozen=True)
class SweepSummary:
    """A sweep as its journal tells it."""

    key: str
    study: str
    num_points: int
    num_ended: int  # trials that finished, failed or were pruned in any attempt
    status: str  # finished, `N failed`, interrupted, or `running or killed`
    last_ms: int  # Unix milliseconds of the last event


@dataclass(frozen=True)
class Checked:
    """What reading one artifact found."""

    key: str
    stage: str  # empty where the manifest cannot be read
    num_files: int
    num_bytes: int
    faults: tuple[str, ...] = ()  # of its own bytes: it is damaged
    missing_inputs: tuple[str, ...] = ()  # `role KEY`: no damage, the input is computed when it is needed
    quarantined: bool = False


def published(store: Artifacts, keys: Sequence[str] | None = None) -> list[tuple[str, Artifact | None]]:
    """Return keys with what their manifests say; None for one that cannot be read, which stays in place."""
    wanted = store.keys() if keys is None else keys
    found = parallel_map(lambda key: peek(store.blobs, key), wanted)
    return [(key, one) for key, (is_there, one) in zip(wanted, found, strict=True) if is_there]


def one_key(store: Artifacts, prefix: str) -> str:
    """Return the only published key that starts with `prefix`; raise ValueError otherwise."""
    found = [key for key in store.keys() if key.startswith(prefix)]  # noqa: SIM118 - a store is no dict
    if not found:
        raise ValueError(
            f"key={prefix} begins no artifact in {store.blobs.uri}; `ls --stage STAGE` lists some."
        )
    if len(found) > 1:
        shown = ", ".join(key[: len(prefix) + 6] for key in found[:5])
        raise ValueError(f"key={prefix} begins {len(found)} artifacts ({shown}); give more of the key.")
    return found[0]


def summary(artifacts: Iterable[Artifact]) -> list[StageSummary]:
    """Return one line for each stage, by name."""
    stages: dict[str, list[Artifact]] = {}
    for artifact in artifacts:
        stages.setdefault(artifact.stage, []).append(artifact)
    return [
        StageSummary(stage, len(group), sum(map(size, group)), max(one.created_ms for one in group))
        for stage, group in sorted(stages.items())
    ]


def size(artifact: Artifact) -> int:
    """Return the bytes of an artifact's files."""
    return sum(file.size for file in artifact.files.values())


def main_metric(artifact: Artifact, order: Iterable[str] = ()) -> tuple[str, float] | None:
    """Return the first metric in `order` that the artifact has, or else its first by name; None without
    any."""
    known = [name for name in order if name in artifact.metrics]
    name = next(iter(known or sorted(artifact.metrics)), None)
    return None if name is None else (name, artifact.metrics[name])


def sweeps(blobs: Blobs) -> list[SweepSummary]:
    """Return the sweeps whose journals the store has, the latest first."""
    keys = sorted({name.split("/")[1] for name in blobs.names("sweeps/") if "/journal/" in name})
    found = [(key, Journal(blobs, key).events()) for key in keys]
    return sorted((_sweep(key, events) for key, events in found if events), key=lambda one: -one.last_ms)


def verify(store: Artifacts, keys: Sequence[str], *, dry_run: bool = False) -> Iterator[Checked]:
    """Read every file of these artifacts, quarantine the damaged ones unless `dry_run`; yield each."""
    there = set(store.keys())
    for one in parallel_map(lambda key: _check(store, key, there, dry_run=dry_run), keys, _READERS):
        if one is not None:
            yield one


def peek(blobs: Blobs, key: str) -> tuple[bool, Artifact | None]:
    """Return whether there is a manifest, and what it says if it can be read; nothing is moved."""
    for _ in range(_READS):
        data = blobs.get(manifest_name(key))
        if data is None:
            return False, None
        with suppress(ValueError):
            artifact = Artifact.from_json(data)
            return True, artifact if artifact.key == key else None
    return True, None


def _check(store: Artifacts, key: str, there: set[str], *, dry_run: bool) -> Checked | None:
    """Return what one artifact is like, or None if it went away meanwhile."""
    is_there, artifact = peek(store.blobs, key)
    if not is_there:
        return None
    if artifact is None:
        is_gone = not dry_run and store.find(key) is None
        return Checked(key, "", 0, 0, ("manifest.json cannot be read",), quarantined=is_gone)
    damaged = {file.name: fault for file in artifact.files.values() if (fault := _fault(store.blobs, file))}
    is_gone = bool(damaged) and not dry_run and _quarantines(store, artifact, next(iter(damaged)))
    return Checked(
        key=key,
        stage=artifact.stage,
        num_files=len(artifact.files),
        num_bytes=size(artifact),
        faults=tuple(f"{name}: {fault}" for name, fault in damaged.items()),
        missing_inputs=tuple(f"{role} {need}" for role, need in artifact.inputs.items() if need not in there),
        quarantined=is_gone,
    )


def _fault(blobs: Blobs, file: File) -> str:
    """Return how the stored bytes differ from the published ones; empty if they do not."""
    got = ""
    for _ in range(_READS):
        data = blobs.get(file.object)
        if data is None:
            got = "nothing"
        elif len(data) != file.size:
            got = f"{len(data)} bytes"
        elif (digest := hashlib.sha256(data).hexdigest()) != file.sha256:
            got = f"{len(data)} bytes with sha256 {digest[:12]}"
        else:
            return ""
    return f"want {file.size} bytes with sha256 {file.sha256[:12]}, got {got}"


def _quarantines(store: Artifacts, artifact: Artifact, name: str) -> bool:
    """Read a file as a stage would; return whether that took the artifact out of the way."""
    try:
        store.read(artifact, name)
    except Corrupt:
        return True
    return False


def _sweep(key: str, events: Sequence[dict[str, Any]]) -> SweepSummary:
    last = sorted(events, key=lambda event: event.get("time_ms", 0))[-1]
    start: dict[str, Any] = next((event for event in reversed(events) if event["event"] == "start"), {})
    ended = {event.get("trial") for event in events if event["event"] == "ended"}
    return SweepSummary(
        key=key,
        study=str(start.get("study", "")),
        num_points=int(start.get("points", 0)),
        num_ended=len(ended),
        status=_status(last),
        last_ms=int(last.get("time_ms", 0)),
    )


def _status(last: dict[str, Any]) -> str:
    if last["event"] == "finish":
        failed = last.get("failed", 0)
        return f"{failed} failed" if failed else "finished"
    return "interrupted" if last["event"] == "interrupted" else "running or killed"

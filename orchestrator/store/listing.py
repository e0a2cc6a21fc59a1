"""Store listing: artifacts by stage, one artifact in full, sweeps; and verification of what was published.

Only `verify` changes a store: it quarantines damaged artifacts exactly as a read does.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.config.base import Refused
from orchestrator.store.artifacts import Artifact, Artifacts, Corrupt, Damaged, File, read_file, read_manifest
from orchestrator.store.blobs import Blobs, sha256
from orchestrator.store.journal import Journal
from orchestrator.store.parallel import parallel_map
from orchestrator.store.requests import RequestFolder, Start, State, latest_start

KILLED = "killed"
_READERS = 4  # each holds a whole file


@dataclass(frozen=True)
class StageSummary:
    """The artifacts of one stage."""

    stage: str
    num_artifacts: int
    num_bytes: int  # of the files that manifests name
    newest_ms: int  # Unix milliseconds


@dataclass(frozen=True)
class SweepSummary:
    """A sweep as its journal records it."""

    key: str
    study: str
    num_points: int
    num_ended: int  # trials that finished, failed or were pruned in any attempt
    status: str  # finished, `N failed`, interrupted, killed; running or paused, with `or killed` if unknown
    last_ms: int  # Unix milliseconds of the last event
    start: Start | None = field(default=None, compare=False)  # the latest
    state: State | None = field(default=None, compare=False)  # of that start; None where it has ended

    @property
    def size(self) -> str:
        """Worker groups now and asked, of a sweep that runs; empty where there are none."""
        return self.state.size if self.state else ""


@dataclass(frozen=True)
class Checked:
    """Result of reading one artifact."""

    key: str
    stage: str  # empty where the manifest cannot be read
    num_files: int
    num_bytes: int
    faults: tuple[str, ...] = ()  # of its own bytes: it is damaged
    missing_inputs: tuple[str, ...] = ()  # `role KEY`: no damage, a sweep that needs the input computes it
    quarantined: bool = False


def published(store: Artifacts, keys: Sequence[str] | None = None) -> list[tuple[str, Artifact | None]]:
    """Return the published ones of `keys`, by default all, with their manifests; None for a damaged one."""
    wanted = store.keys() if keys is None else keys
    manifests = parallel_map(lambda key: peek(store.blobs, key), wanted)
    return [(key, artifact) for key, (is_there, artifact) in zip(wanted, manifests, strict=True) if is_there]


def one_key(store: Artifacts, prefix: str) -> str:
    """Return the only published key that starts with `prefix`; raise `Refused` for none or several."""
    keys = [key for key in store.keys() if key.startswith(prefix)]  # noqa: SIM118 - a store is no dict
    if not keys:
        rule, way_out = f"begins no artifact in {store.blobs.uri}", "`ls --stage STAGE` lists some"
        raise Refused("key", prefix, rule, way_out)
    if len(keys) > 1:
        shown = ", ".join(key[: len(prefix) + 6] for key in keys[:5])
        raise Refused("key", prefix, f"begins {len(keys)} artifacts ({shown})", "give more of the key")
    return keys[0]


def summary(artifacts: Iterable[Artifact]) -> list[StageSummary]:
    """Return the totals of each stage, by name."""
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
    """Return the sweeps that have a journal in the store, the latest first."""
    keys = sorted({name.split("/")[1] for name in blobs.names("sweeps/") if "/journal/" in name})
    journals = [(key, Journal(blobs, key).events()) for key in keys]
    found = (_sweep(blobs, key, events) for key, events in journals if events)
    return sorted(found, key=lambda one: -one.last_ms)


def verify(store: Artifacts, keys: Sequence[str], *, dry_run: bool = False) -> Iterator[Checked]:
    """Read every file of these artifacts, quarantine the damaged ones unless `dry_run`; yield each result."""
    stored = set(store.keys())
    for one in parallel_map(lambda key: _check(store, key, stored, dry_run=dry_run), keys, _READERS):
        if one is not None:
            yield one


def peek(blobs: Blobs, key: str) -> tuple[bool, Artifact | None]:
    """Return whether a manifest exists, and its content unless it is damaged; nothing is moved."""
    try:
        artifact = read_manifest(blobs, key)
    except Damaged:
        return True, None
    return artifact is not None, artifact


def _check(store: Artifacts, key: str, stored: set[str], *, dry_run: bool) -> Checked | None:
    """Return the result for one artifact, or None if it was removed meanwhile."""
    is_there, artifact = peek(store.blobs, key)
    if not is_there:
        return None
    if artifact is None:
        is_gone = not dry_run and store.find(key) is None
        return Checked(key, "", 0, 0, ("manifest.json cannot be read",), quarantined=is_gone)
    damaged = {
        file.name: fault for file in artifact.files.values() if (fault := _fault(store.blobs, key, file))
    }
    is_gone = bool(damaged) and not dry_run and _quarantines(store, artifact, next(iter(damaged)))
    return Checked(
        key=key,
        stage=artifact.stage,
        num_files=len(artifact.files),
        num_bytes=size(artifact),
        faults=tuple(f"{name}: {fault}" for name, fault in damaged.items()),
        missing_inputs=tuple(
            f"{role} {need}" for role, need in artifact.inputs.items() if need not in stored
        ),
        quarantined=is_gone,
    )


def _fault(blobs: Blobs, key: str, file: File) -> str:
    """Return how the stored bytes differ from the published ones; empty if they do not."""
    try:
        read_file(blobs, key, file)
    except Damaged as error:
        return f"want {file.size} bytes with sha256 {file.sha256[:12]}, got {_in_short(error.data, file)}"
    return ""


def _in_short(data: bytes | None, file: File) -> str:
    if data is None:
        return "nothing"
    size_read = f"{len(data)} bytes"
    return size_read if len(data) != file.size else f"{size_read} with sha256 {sha256(data)[:12]}"


def _quarantines(store: Artifacts, artifact: Artifact, name: str) -> bool:
    """Read a file as a stage would; return whether that quarantined the artifact."""
    try:
        store.read(artifact, name)
    except Corrupt:
        return True
    return False


def _sweep(blobs: Blobs, key: str, events: Sequence[dict[str, Any]]) -> SweepSummary:
    last = sorted(events, key=lambda event: event.get("time_ms", 0))[-1]
    first: dict[str, Any] = next((event for event in reversed(events) if event["event"] == "start"), {})
    ended = {event.get("trial") for event in events if event["event"] == "ended"}
    start, status, state = latest_start(events), _end(last), None
    if not status:
        state = RequestFolder(blobs, key, start.name).read_state() if start and start.name else State()
        status = _running(state, start)
        state = None if status == KILLED else state
    return SweepSummary(
        key=key,
        study=str(first.get("study", "")),
        num_points=int(first.get("points", 0)),
        num_ended=len(ended),
        status=status,
        last_ms=int(last.get("time_ms", 0)),
        start=start,
        state=state,
    )


def _end(last: dict[str, Any]) -> str:
    """Return how a sweep ended; empty if its journal does not say that it has."""
    if last["event"] == "finish":
        failed = last.get("failed", 0)
        return f"{failed} failed" if failed else "finished"
    return "interrupted" if last["event"] == "interrupted" else ""


def _running(state: State, start: Start | None) -> str:
    """Return what a sweep without an end does, as far as this host can see."""
    is_alive = start.is_alive if start else None
    if is_alive is None:
        return f"{state.phase} or killed"
    return state.phase if is_alive else KILLED

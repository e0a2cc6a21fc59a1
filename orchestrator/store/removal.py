"""Removal from a store: a sweep, or everything that was computed from a data set.

A sweep's journal names the stages that it needs and the data sets that it reads; an artifact's manifest names
its inputs and its data sets. Journals of earlier versions do not: what such a sweep needs is unknown.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.blobs import Blobs, Entry
from orchestrator.store.journal import Journal
from orchestrator.store.listing import published

_MANIFESTS = ("quarantine/", "conflicts/")  # <key>/<sha12>-manifest.json each


@dataclass(frozen=True)
class SweepNeeds:
    """What one sweep needs, as its journal says."""

    key: str
    study: str
    stages: frozenset[str]  # keys
    datasets: frozenset[str]  # names
    is_known: bool  # a start of this version planned it, so that `stages` is all of them


@dataclass(frozen=True)
class Removal:
    """What belongs to removed sweeps and stages, by object."""

    sweeps: tuple[SweepNeeds, ...]
    stages: tuple[str, ...]  # keys
    entries: tuple[Entry, ...]

    @property
    def num_bytes(self) -> int:
        """Size of all objects."""
        return sum(entry.size for entry in self.entries)


def sweep_needs(blobs: Blobs) -> list[SweepNeeds]:
    """Return what every sweep of a store needs, by key."""
    keys = sorted({name.split("/")[1] for name in blobs.names("sweeps/")})
    return [_needs(key, Journal(blobs, key).events()) for key in keys]


def needed_stages(blobs: Blobs) -> frozenset[str]:
    """Return the keys of all stages that a sweep needs; raise `Refused` if that is unknown of some sweep."""
    sweeps = sweep_needs(blobs)
    for sweep in sweeps:
        if not sweep.is_known:
            name = f"{sweep.key[:12]} {sweep.study}"
            rule = f"cannot know what sweep {name} needs, which an earlier version planned"
            way_out = f"run its command again, which computes nothing, or `rm --sweep {sweep.key[:12]}`"
            raise Refused("--unused", NO_VALUE, rule, way_out)
    return _union(sweep.stages for sweep in sweeps)


def one_sweep(sweeps: Sequence[SweepNeeds], prefix: str) -> SweepNeeds:
    """Return the only sweep whose key starts with `prefix`; raise `Refused` for none or several."""
    found = [sweep for sweep in sweeps if sweep.key.startswith(prefix)]
    if len(found) == 1 and prefix:
        return found[0]
    shown = ", ".join(f"{sweep.key[:12]} {sweep.study}" for sweep in found[:5])
    rule = f"begins {len(found)} sweeps ({shown})" if found else "begins the key of no sweep here"
    raise Refused("sweep", prefix, rule, "give more of the key" if found else "`ls --sweeps` lists them")


def of_sweep(store: Artifacts, sweep: SweepNeeds, others: Iterable[SweepNeeds]) -> Removal:
    """Return a sweep's own objects, and those of its stages that no other sweep needs.

    Stages stay if what another sweep needs is unknown.
    """
    rest = [other for other in others if other.key != sweep.key]
    kept = _union(other.stages for other in rest)
    stages = sweep.stages - kept if all(other.is_known for other in rest) else frozenset()
    return _removal(store.blobs, [sweep], stages)


def of_dataset(store: Artifacts, name: str, sweeps: Sequence[SweepNeeds]) -> Removal:
    """Return what was computed from a data set: stages, all that was computed from them, and their sweeps.

    Checkpoints of stages that were never published are taken from the sweeps that read the set.
    """
    manifests = [artifact for _, artifact in published(store) if artifact] + _moved_aside(store.blobs)
    derived = {artifact.key for artifact in manifests if name in _dataset_names(artifact)}
    while more := {one.key for one in manifests if derived & set(one.inputs.values())} - derived:
        derived |= more
    gone = [sweep for sweep in sweeps if name in sweep.datasets or derived & sweep.stages]
    known = {artifact.key for artifact in manifests}
    unpublished = _union(sweep.stages for sweep in gone) - known
    return _removal(store.blobs, gone, frozenset(derived | unpublished))


def remove(blobs: Blobs, removal: Removal) -> None:
    """Remove the objects, manifests first: a reader sees a whole artifact or none."""
    for entry in sorted(removal.entries, key=lambda entry: not entry.name.endswith("/manifest.json")):
        blobs.remove(entry.name)


def _needs(key: str, events: Sequence[dict[str, Any]]) -> SweepNeeds:
    planned = [event for event in events if event["event"] == "planned" and "needs" in event]
    built = [stage for event in events if event["event"] == "ended" for stage in event.get("built", ())]
    return SweepNeeds(
        key=key,
        study=next((str(event["study"]) for event in reversed(events) if "study" in event), ""),
        stages=frozenset([*built, *(stage for event in planned for stage in event["needs"])]),
        datasets=frozenset(name for event in planned for name in event.get("datasets", ())),
        is_known=bool(planned),
    )


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset(key for one in sets for key in one)


def _dataset_names(artifact: Artifact) -> set[str]:
    return {part["name"] for part in artifact.spec.get("datasets", {}).values()}


def _moved_aside(blobs: Blobs) -> list[Artifact]:
    """Return the readable manifests of quarantined artifacts and of conflicting runs."""
    found = []
    for name in (name for folder in _MANIFESTS for name in blobs.names(folder)):
        try:
            found.append(Artifact.from_json(blobs.get(name) or b""))
        except ValueError:
            continue  # damaged itself: nothing is known of it
    return found


def _removal(blobs: Blobs, sweeps: Sequence[SweepNeeds], stages: frozenset[str]) -> Removal:
    prefixes = [f"sweeps/{sweep.key}/" for sweep in sweeps]
    for key in sorted(stages):
        prefixes += [
            f"artifacts/{key[:2]}/{key}/",
            f"checkpoints/{key}",
            *(f"{one}{key}/" for one in _MANIFESTS),
        ]
    entries = [entry for prefix in prefixes for entry in blobs.entries(prefix)]
    there = {entry.name.split("/")[2] for entry in entries if entry.name.startswith("artifacts/")}
    return Removal(tuple(sweeps), tuple(sorted(stages & there)), tuple(entries))

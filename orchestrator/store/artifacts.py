"""Artifact store: results of stages by key, whole or absent, verified on every read, over any `Blobs`.

Layout: `artifacts/<key[:2]>/<key>/<sha12>-<file>` holds the bytes, `manifest.json` beside them is published
last and makes the artifact exist. `conflicts/` keeps the manifests of stages that gave other bytes under the
same key, `quarantine/` those whose bytes were damaged.

`reread` is the only loop that reads damaged bytes again, for artifacts, listings and data sets alike.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter

from orchestrator.config.base import NO_VALUE, Refused, canonical
from orchestrator.store.blobs import Blobs, sha256

logger = logging.getLogger(__name__)
T = TypeVar("T")
_KEY = re.compile(r"[A-Za-z0-9_=-]{2,128}", re.ASCII)
READS = 3  # a first read and two more: damage on the way goes away, damage at rest stays
_PUBLISHES = 3  # the winner's manifest may be quarantined between our two looks


@dataclass(frozen=True)
class File:
    """One file of an artifact."""

    name: str
    object: str  # blob name
    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class Artifact:
    """Result of a stage: the content of its manifest."""

    key: str
    stage: str
    version: int
    spec: dict[str, Any]  # the sub-specs that entered the key
    inputs: dict[str, str] = field(default_factory=dict)  # name -> key
    files: dict[str, File] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)  # wall_seconds, cpu_seconds, images_seen, ...
    profile: dict[str, Any] = field(
        default_factory=dict
    )  # what changes bits: device, precision, workers, threads
    code_version: str = ""
    created_ms: int = 0  # Unix milliseconds

    def to_json(self) -> str:
        """Return canonical JSON, sealed with the digest of itself."""
        body = _canonical(asdict(self))
        return _canonical({**json.loads(body), "sha256": sha256(body.encode())})

    @staticmethod
    def from_json(text: str | bytes) -> "Artifact":
        """Parse the output of `to_json`; raise ValueError if the text is anything else."""
        document = json.loads(text)
        if not isinstance(document, dict):
            raise Refused("manifest", NO_VALUE, "must be a JSON object", "rebuild the stage")
        seal = document.pop("sha256", None)
        if seal != sha256(canonical(document).encode()):
            raise Refused("manifest", NO_VALUE, "differs from the digest it carries", "rebuild the stage")
        return _PARSED.validate_python(document)


_PARSED = TypeAdapter(Artifact)
_PLAIN = TypeAdapter(dict[str, Any], config=ConfigDict(ser_json_inf_nan="strings"))


class Damaged(Exception):
    """Bytes as they were read are not those published; `data` is None where there are none."""

    def __init__(self, data: bytes | None, reason: str) -> None:
        super().__init__(data, reason)
        self.data, self.reason = data, reason


class Corrupt(Exception):
    """Stored bytes are not those published; the artifact is quarantined, so that its stage is rebuilt."""

    def __init__(self, key: str, file: str, want: str, got: str, quarantined: str) -> None:
        super().__init__(key, file, want, got, quarantined)
        self.key, self.file, self.want, self.got, self.quarantined = key, file, want, got, quarantined

    def __str__(self) -> str:
        return (
            f"artifact {self.key} file {self.file}: want {self.want}, got {self.got}; its manifest is now "
            f"{self.quarantined}, run again to rebuild the stage."
        )


def gone(key: str) -> Corrupt:
    """Return the error for an artifact that was published and is not any more."""
    return Corrupt(key, "manifest.json", "a published stage", "nothing", "gone")


def reread(read: Callable[[], T], what: str) -> T:
    """Return what `read` returns; repeat it if it raises `Damaged`, READS times in all. `what` is logged."""
    for attempt in range(1, READS):
        try:
            return read()
        except Damaged as error:
            logger.warning("event=read_mismatch %s attempt=%d reason=%r", what, attempt, error.reason)
    return read()


def read_manifest(blobs: Blobs, key: str) -> Artifact | None:
    """Return a manifest's content, or None if there is none; raise `Damaged` and move nothing."""
    name = manifest_name(key)

    def once() -> Artifact | None:
        data = blobs.get(name)
        try:
            return None if data is None else _checked(Artifact.from_json(data), key)
        except ValueError as error:
            raise Damaged(data, str(error).splitlines()[0]) from error

    return reread(once, f"key={key} file=manifest.json")


def read_file(blobs: Blobs, key: str, file: File) -> bytes:
    """Return a file of an artifact, its size and digest as published; nothing is moved. Raise `Damaged`."""

    def once() -> bytes:
        data = blobs.get(file.object)
        if data is not None and len(data) == file.size and sha256(data) == file.sha256:
            return data
        raise Damaged(data, "nothing" if data is None else f"{len(data)} bytes sha256 {sha256(data)}")

    return reread(once, f"key={key} file={file.name}")


class Artifacts:
    """Find, publish and read artifacts; many processes may do so at once."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs

    def find(self, key: str) -> Artifact | None:
        """Return the artifact if it is published; a damaged manifest is quarantined and counts as absent.

        Raise `Refused` if `key` is no key.
        """
        try:
            return read_manifest(self.blobs, key)
        except Damaged as error:
            where = self._move_aside(key, error.data or b"")
            logger.warning("event=manifest_quarantined key=%s where=%s reason=%r", key, where, error.reason)
            return None

    def publish(self, artifact: Artifact, files: Mapping[str, bytes]) -> Artifact:
        """Store the files, then the manifest; return the artifact published first under this key.

        Raise RuntimeError if other processes keep removing the manifest.
        """
        named = {name: _describe(artifact.key, name, data) for name, data in files.items()}
        ours = replace(artifact, files=named)
        # Overwriting heals an object that was damaged at rest; equal names mean equal bytes.
        for name, data in files.items():
            self.blobs.put(named[name].object, data)
        for _ in range(_PUBLISHES):
            if self.blobs.put(manifest_name(ours.key), ours.to_json().encode(), overwrite=False):
                self._put_missing(ours, files)
                return ours
            theirs = self.find(ours.key)
            if theirs is not None:
                self._compare(ours, theirs)
                return theirs
        raise RuntimeError(
            f"manifest of artifact {ours.key} appears and vanishes; is the store being deleted?"
        )

    def _put_missing(self, artifact: Artifact, files: Mapping[str, bytes]) -> None:
        """Put again what a garbage collection took away in the instant before the manifest was there."""
        present = set(self.blobs.names(f"{_folder(artifact.key)}/"))
        for name, data in files.items():
            if artifact.files[name].object not in present:
                self.blobs.put(artifact.files[name].object, data)

    def read(self, artifact: Artifact, name: str) -> bytes:
        """Return a file as it was published; else quarantine the artifact and raise `Corrupt`."""
        file = artifact.files[name]
        try:
            return read_file(self.blobs, artifact.key, file)
        except Damaged as error:
            where = self._quarantine(artifact)
            logger.error("event=artifact_quarantined key=%s file=%s where=%s", artifact.key, name, where)
            want = f"{file.size} bytes sha256 {file.sha256}"
            raise Corrupt(artifact.key, name, want, error.reason, where) from None

    def keys(self) -> list[str]:
        """Return the keys of all published artifacts, sorted."""
        parts = [name.split("/") for name in self.blobs.names("artifacts/")]
        return sorted(part[2] for part in parts if len(part) == 4 and part[3] == "manifest.json")

    def _quarantine(self, artifact: Artifact) -> str:
        """Take the artifact out of the way, unless a manifest with other bytes has taken its place."""
        stored = self.blobs.get(manifest_name(artifact.key))
        if stored is not None:
            with suppress(ValueError):  # unreadable as well: moved below like the rest
                if _digests(Artifact.from_json(stored)) != _digests(artifact):
                    stored = None
        return self._move_aside(artifact.key, stored or artifact.to_json().encode())

    def _move_aside(self, key: str, manifest: bytes) -> str:
        """Copy this manifest to the quarantine and remove it where it stands; return where it is now."""
        where = f"quarantine/{key}/{sha256(manifest)[:12]}-manifest.json"
        self.blobs.put(where, manifest)
        if self.blobs.get(manifest_name(key)) == manifest:
            self.blobs.remove(manifest_name(key))
        return where

    def _compare(self, ours: Artifact, theirs: Artifact) -> None:
        """Keep a record if two runs of one stage gave different bytes; times and costs may differ."""
        if _digests(ours) == _digests(theirs):
            return
        record = ours.to_json().encode()
        where = f"conflicts/{ours.key}/{sha256(record)[:12]}-manifest.json"
        self.blobs.put(where, record)
        logger.warning("event=publish_conflict key=%s stage=%s where=%s", ours.key, ours.stage, where)


class ReadOnce(Artifacts):
    """Artifacts of which each manifest is read once: a report's, which every section of it asks for again."""

    def __init__(self, blobs: Blobs) -> None:
        super().__init__(blobs)
        self._found: dict[str, Artifact | None] = {}

    def find(self, key: str) -> Artifact | None:
        """Return what the first call for this key returned."""
        if key not in self._found:
            self._found[key] = super().find(key)
        return self._found[key]


def _canonical(document: dict[str, Any]) -> str:
    """Return sorted JSON without spaces; infinities and NaN become strings that `float` reads."""
    plain = json.loads(_PLAIN.dump_json(document))
    return canonical(plain)


def _folder(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise Refused(
            f"artifact key {key[:80]!r}", NO_VALUE, "must be 2..128 of A-Z a-z 0-9 _ = -", "use a stage's key"
        )
    return f"artifacts/{key[:2]}/{key}"


def manifest_name(key: str) -> str:
    """Return the name of the object whose existence makes the artifact exist; raise `Refused` for no key."""
    return f"{_folder(key)}/manifest.json"


def _describe(key: str, name: str, data: bytes) -> File:
    digest = sha256(data)
    return File(name, f"{_folder(key)}/{digest[:12]}-{name}", len(data), digest)


def _checked(artifact: Artifact, key: str) -> Artifact:
    """Return the artifact if it has this key and names only files of its own; else raise ValueError."""
    if artifact.key != key:
        raise ValueError(f"manifest of {key} has key={artifact.key}")
    foreign = [
        file.object for file in artifact.files.values() if not file.object.startswith(_folder(key) + "/")
    ]
    if foreign:
        raise ValueError(f"manifest of {key} names an object of another artifact: {foreign[0]}")
    return artifact


def _digests(artifact: Artifact) -> dict[str, str]:
    return {name: file.sha256 for name, file in artifact.files.items()}

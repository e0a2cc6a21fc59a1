"""The artifact store: results of stages by key, whole or absent, verified on every read, over any `Blobs`.

Layout: `artifacts/<key[:2]>/<key>/<sha12>-<file>` holds the bytes, `manifest.json` beside them is published
last and makes the artifact exist. `conflicts/` keeps the manifests of stages that gave other bytes under the
same key, `quarantine/` those whose bytes were damaged.
"""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from orchestrator.store.blobs import Blobs

_LOG = logging.getLogger(__name__)
_KEY = re.compile(r"[A-Za-z0-9_=-]{2,128}", re.ASCII)
_READS = 3  # a first read and two more: damage on the way goes, damage at rest stays
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
    """What a stage left: the content of its manifest."""

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
        return _canonical({**json.loads(body), "sha256": _sha256(body.encode())})

    @staticmethod
    def from_json(text: str | bytes) -> "Artifact":
        """Parse what `to_json` wrote; ValueError if it is anything else."""
        document = json.loads(text)
        if not isinstance(document, dict):
            raise ValueError("manifest must be a JSON object; rebuild the stage.")
        seal = document.pop("sha256", None)
        if seal != _sha256(_canonical(document).encode()):
            raise ValueError("manifest differs from the digest it carries; rebuild the stage.")
        return _PARSED.validate_python(document)


_PARSED = TypeAdapter(Artifact)
_PLAIN = TypeAdapter(dict[str, Any], config=ConfigDict(ser_json_inf_nan="strings"))


class Corrupt(Exception):
    """Stored bytes are not those published; the artifact is out of the way, so that it is rebuilt."""

    def __init__(self, key: str, file: str, want: str, got: str, quarantined: str) -> None:
        super().__init__(key, file, want, got, quarantined)
        self.key, self.file, self.want, self.got, self.quarantined = key, file, want, got, quarantined

    def __str__(self) -> str:
        return (
            f"artifact {self.key} file {self.file}: want {self.want}, got {self.got}; its manifest is now "
            f"{self.quarantined}, run again to rebuild the stage."
        )


class Artifacts:
    """Find, publish and read artifacts; many processes may do so at once."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs

    def find(self, key: str) -> Artifact | None:
        """Return the artifact if it is published; a damaged manifest is quarantined and counts as absent."""
        reason = ""
        for _ in range(_READS):
            data = self.blobs.get(manifest_name(key))
            if data is None:
                return None
            try:
                return _checked(Artifact.from_json(data), key)
            except ValueError as error:
                reason = str(error).splitlines()[0]
        assert data is not None
        where = self._move_aside(key, data)
        _LOG.warning("event=manifest_quarantined key=%s where=%s reason=%r", key, where, reason)
        return None

    def publish(self, artifact: Artifact, files: Mapping[str, bytes]) -> Artifact:
        """Store the files, then the manifest; if somebody published this key before, return theirs."""
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
        """Return a file whose size and digest are right, or raise Corrupt."""
        file = artifact.files[name]
        got = ""
        for _ in range(_READS):
            data = self.blobs.get(file.object)
            got = "nothing" if data is None else f"{len(data)} bytes sha256 {_sha256(data)}"
            if data is not None and len(data) == file.size and _sha256(data) == file.sha256:
                return data
            _LOG.warning("event=read_mismatch key=%s file=%s got=%r", artifact.key, name, got)
        where = self._quarantine(artifact)
        want = f"{file.size} bytes sha256 {file.sha256}"
        _LOG.error("event=artifact_quarantined key=%s file=%s where=%s", artifact.key, name, where)
        raise Corrupt(artifact.key, name, want, got, where)

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
        where = f"quarantine/{key}/{_sha256(manifest)[:12]}-manifest.json"
        self.blobs.put(where, manifest)
        if self.blobs.get(manifest_name(key)) == manifest:
            self.blobs.remove(manifest_name(key))
        return where

    def _compare(self, ours: Artifact, theirs: Artifact) -> None:
        """Keep a record if two runs of one stage gave different bytes; times and costs may differ."""
        if _digests(ours) == _digests(theirs):
            return
        record = ours.to_json().encode()
        where = f"conflicts/{ours.key}/{_sha256(record)[:12]}-manifest.json"
        self.blobs.put(where, record)
        _LOG.warning("event=publish_conflict key=%s stage=%s where=%s", ours.key, ours.stage, where)


def _canonical(document: dict[str, Any]) -> str:
    """Return sorted JSON without spaces; infinities and NaN become strings that `float` reads."""
    plain = json.loads(_PLAIN.dump_json(document))
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _folder(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"artifact key {key[:80]!r} must be 2..128 of A-Z a-z 0-9 _ = -; use a stage's key.")
    return f"artifacts/{key[:2]}/{key}"


def manifest_name(key: str) -> str:
    """Return the blob whose existence makes the artifact exist."""
    return f"{_folder(key)}/manifest.json"


def _describe(key: str, name: str, data: bytes) -> File:
    digest = _sha256(data)
    return File(name, f"{_folder(key)}/{digest[:12]}-{name}", len(data), digest)


def _checked(artifact: Artifact, key: str) -> Artifact:
    if artifact.key != key:
        raise ValueError(f"manifest of {key} says key={artifact.key}")
    foreign = [
        file.object for file in artifact.files.values() if not file.object.startswith(_folder(key) + "/")
    ]
    if foreign:
        raise ValueError(f"manifest of {key} names an object of another artifact: {foreign[0]}")
    return artifact


def _digests(artifact: Artifact) -> dict[str, str]:
    return {name: file.sha256 for name, file in artifact.files.items()}

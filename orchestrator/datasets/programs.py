"""Programs: classifiers as files, staged beside public weights and read by name. No torch: plans use it.

`<data>/weights/NAME/` holds the file byte for byte and a manifest, written last. Weights and programs share
their names. Whether a file is safe to load is not known here: `models.programs` checks it at each loading.
"""

import json
from dataclasses import dataclass

from pydantic import ValidationError

from orchestrator.config import Spec
from orchestrator.config.base import NO_VALUE, Refused, digest
from orchestrator.config.installation import to_call
from orchestrator.config.program import ENDINGS, Program
from orchestrator.datasets import Location
from orchestrator.datasets.cache import Wanted, read_verified
from orchestrator.datasets.manifest import NAME, File
from orchestrator.datasets.weights_manifest import FOLDER, TOOL, kind_of, stored
from orchestrator.store.blobs import Blobs, sha256

FIELD = "target.program"


class ProgramManifest(Spec):
    """Everything about a staged program except its bytes."""

    name: str
    source: str
    """A file's name, without its path."""

    file: File
    program: Program


@dataclass(frozen=True)
class StagedProgram:
    """A manifest in short."""

    name: str
    digest: str  # of the file and of what is declared of it, as it enters keys
    source: str
    program: Program


def stage(
    data: bytes, program: Program, source: str, blobs: Blobs, name: str
) -> tuple[ProgramManifest, bool]:
    """Write a program under a name; return its manifest and whether anything was written.

    Raise `Refused` if the name is malformed or taken by other weights or another program.
    """
    if NAME.fullmatch(name) is None:
        rule = "must be lower-case letters, digits, dots, dashes and underscores, at most 64"
        raise Refused("--name", name, rule, "choose another --name")
    checksum = sha256(data)
    file = File(name=f"program-{checksum[:12]}.{ENDINGS[program.kind]}", size=len(data), sha256=checksum)
    manifest = ProgramManifest(name=name, source=source, file=file, program=program)
    present = blobs.get(f"{FOLDER}/{name}/manifest.json")
    if present is not None:
        kind = kind_of(present)
        known = _parse(present, name) if kind == "program" else None
        if known and (known.file, known.program) == (file, program):
            return known, False
        rule = f"is taken by {'another program' if known else kind} at {blobs.uri}"
        raise Refused("--name", name, rule, "choose another name")
    blobs.put(f"{FOLDER}/{name}/{file.name}", data)
    blobs.put(f"{FOLDER}/{name}/manifest.json", manifest.model_dump_json(indent=1).encode())
    return manifest, True


def describe(name: str, location: Location, field: str = FIELD) -> StagedProgram:
    """Return a description of a staged program.

    Raise `Refused` of `field` with the known names if the name is unknown, if it is that of weights, or if
    the manifest is damaged.
    """
    manifest, _ = _manifest(name, location, field)
    key = digest({"sha256": manifest.file.sha256, "program": manifest.program.plain})
    return StagedProgram(name, key, manifest.source, manifest.program)


def verify(name: str, location: Location, field: str = FIELD) -> StagedProgram:
    """Check the file's SHA-256 and return its description; raise as `read` does."""
    read(name, location, field)
    return describe(name, location, field)


def read(name: str, location: Location, field: str = FIELD) -> bytes:
    """Return the verified bytes of the program's file.

    Raise as `describe` does, and `ValueError` if the file is missing or differs from its checksum.
    """
    manifest, blobs = _manifest(name, location, field)
    return read_verified(Wanted(blobs, f"{FOLDER}/{name}", manifest.file, TOOL), location.node_cache)


def _manifest(name: str, location: Location, field: str) -> tuple[ProgramManifest, Blobs]:
    data, blobs = stored(name, location, field, "programs are")
    kind = kind_of(data)
    if kind == "weights":
        raise Refused(field, name, "are weights, not a program", "name them in target.weights")
    if kind == "service":
        raise Refused(field, name, "is a service, not a program", "name it in target.service")
    return _parse(data, name), blobs


def _parse(data: bytes, name: str) -> ProgramManifest:
    try:
        return ProgramManifest.model_validate(json.loads(data))
    except ValidationError as error:
        where, rule = f"{FOLDER}/{name}/manifest.json", f"is damaged ({error.errors()[0]['msg']})"
        way_out = f"remove that folder and stage the program again with {to_call(TOOL, '--program')}"
        raise Refused(where, NO_VALUE, rule, way_out) from None

"""Services: descriptions of HTTP endpoints, staged beside weights and programs and read by name. No torch.

`<data>/weights/NAME/manifest.json` is all that there is. The digest in keys is of what decides the scores.
What a description says of answers, and how to ask, may be corrected under its name: stored answers stay.
"""

import json
from dataclasses import dataclass
from typing import Any

import urllib3
import yaml
from pydantic import ValidationError

from orchestrator.config import Spec
from orchestrator.config.base import NO_VALUE, Refused, digest
from orchestrator.config.service import Asking, Service, check_key, is_secret
from orchestrator.datasets import Location
from orchestrator.datasets.manifest import NAME
from orchestrator.datasets.weights_manifest import FOLDER, TOOL, kind_of, stored
from orchestrator.store.blobs import Blobs

FIELD = "target.service"


class ServiceManifest(Spec):
    """A staged description."""

    name: str
    source: str
    """A file's name, without its path."""

    service: Service
    asking: Asking


@dataclass(frozen=True)
class StagedService:
    """A manifest in short."""

    name: str
    digest: str  # of what decides the scores, as it enters keys
    source: str
    service: Service
    asking: Asking


def described(text: str, source: str) -> tuple[Service, Asking]:
    """Return what a description holds, which is YAML; raise `Refused` of `source` for what is wrong in it."""
    try:
        raw: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        rule = f"is no YAML ({where}{getattr(error, 'problem', None) or type(error).__name__})"
        raise Refused(source, NO_VALUE, rule, "correct it") from None
    if not isinstance(raw, dict):
        raise Refused(source, NO_VALUE, "must be a mapping", "write url: https://... and what else it needs")
    asking = raw.pop("asking", None)
    service = _validated(Service, raw, "")
    how = _validated(Asking, {} if asking is None else asking, "asking.")
    try:
        urllib3.util.parse_url(service.url)
    except urllib3.exceptions.LocationParseError:
        raise Refused("url", service.place, "is no address", "write https://host/path") from None
    check_key(service, how)
    return service, how


def stage(
    service: Service, asking: Asking, source: str, blobs: Blobs, name: str
) -> tuple[ServiceManifest, bool]:
    """Write a description under a name; return its manifest and whether anything was written.

    How to ask and how answers are read replace what is there. Raise `Refused` if the name is malformed, or
    taken by weights, a program or a service of another address or request.
    """
    if NAME.fullmatch(name) is None:
        rule = "must be lower-case letters, digits, dots, dashes and underscores, at most 64"
        raise Refused("--name", name, rule, "choose another --name")
    manifest = ServiceManifest(name=name, source=source, service=service, asking=asking)
    present = blobs.get(f"{FOLDER}/{name}/manifest.json")
    if present is not None:
        kind = kind_of(present)
        known = _parse(present, name) if kind == "service" else None
        if known is None or known.service.asked != service.asked:
            taken = "a service of another address or request" if known else kind
            raise Refused("--name", name, f"is taken by {taken} at {blobs.uri}", "choose another name")
        if (known.asking, known.service) == (asking, service):
            return known, False
    blobs.put(f"{FOLDER}/{name}/manifest.json", manifest.model_dump_json(indent=1).encode())
    return manifest, True


def describe(name: str, location: Location, field: str = FIELD) -> StagedService:
    """Return a staged service.

    Raise `Refused` of `field` with the known names if the name is unknown, if it is that of weights or of a
    program, or if the manifest is damaged.
    """
    data, _ = stored(name, location, field, "services are")
    kind = kind_of(data)
    if kind != "service":
        is_, there = ("are", "target.weights") if kind == "weights" else ("is a", "target.program")
        raise Refused(field, name, f"{is_} {kind}, not a service", f"name it in {there}")
    manifest = _parse(data, name)
    key = digest({"service": manifest.service.scored})
    return StagedService(name, key, manifest.source, manifest.service, manifest.asking)


def _parse(data: bytes, name: str) -> ServiceManifest:
    try:
        return ServiceManifest.model_validate(json.loads(data))
    except (ValidationError, Refused) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.problem
        where, rule = f"{FOLDER}/{name}/manifest.json", f"is damaged ({reason})"
        way_out = f"remove that folder and stage the service again with python -m {TOOL} --service"
        raise Refused(where, NO_VALUE, rule, way_out) from None


def _validated(spec: type[Any], raw: object, section: str) -> Any:
    """Return a section as its spec; raise `Refused` of the first field that is wrong."""
    try:
        return spec.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        refused = first.get("ctx", {}).get("error")
        path = ".".join(str(one) for one in first["loc"])
        if isinstance(refused, Refused):
            raise refused.under(f"{section}{path}".rstrip(".")) if section or path else refused from None
        field = f"{section}{path}".rstrip(".") or "description"
        value = first["input"]
        is_shown = not isinstance(value, dict | list) and not is_secret(field)
        if first["type"] == "missing" or not is_shown or field.startswith(("url", "headers", "request")):
            value = NO_VALUE
        raise Refused(field, value, f"cannot be used ({first['msg']})", "correct it") from None

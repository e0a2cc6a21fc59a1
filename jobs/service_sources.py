"""Staging of services: a description is checked and stored; nothing is asked, as no store counts it here."""

from collections.abc import Sequence
from pathlib import Path

from orchestrator.config.base import Refused
from orchestrator.datasets import services
from orchestrator.datasets.weights_manifest import FOLDER
from orchestrator.runtime.open_store import check
from orchestrator.store.blobs import Blobs

MAX_BYTES = 4 * 2**20  # of a description, with the names of a hundred thousand classes


def stage_service(source: str, blobs: Blobs, name: str) -> Sequence[str]:
    """Stage the service that SOURCE describes under a name; return the lines to print.

    Raise `Refused` if it is no description, or if the name is taken by something else.
    """
    path = Path(source)
    if not path.is_file():
        raise Refused("SOURCE", source, "is no file", "name the YAML file that describes the service")
    if path.stat().st_size > MAX_BYTES:
        raise Refused("SOURCE", source, f"has more than {MAX_BYTES} bytes", "name a description")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Refused("SOURCE", source, "is no UTF-8 text", "name a description") from None
    service, asking = services.described(text, path.name)
    check(blobs, option="DEST")
    _, is_new = services.stage(service, asking, path.name, blobs, name)
    where = f"{blobs.uri.rstrip('/')}/{FOLDER}/{name}"
    released = "labels alone" if service.outputs == "labels" else f"{service.num_released} {service.outputs}"
    return (
        f"{'staged' if is_new else 'already staged, nothing written:'} {where}",
        f"service: {service.place}, {service.classes} classes, {released} of each image",
        f"asking: at most {asking.budget} requests of {service.images_per_request} images",
    )

"""Images as a service gets them: resized, encoded, put into its request."""

import base64
import io
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from orchestrator.config.service import IMAGE, Service, holds_image, is_row
from orchestrator.models.inputs import Resized, Scaled
from orchestrator.store.blobs import sha256

CHUNK = 64  # images resized at a time
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Sent:
    """One image as it is sent: two of the same digest have the same answer."""

    digest: str
    pixels: np.ndarray  # (C, S, S) of the service's size: uint8, of floats float32, not yet scaled


@dataclass(frozen=True)
class Body:
    """The body of a request and its media type."""

    data: bytes
    media_type: str


def sent_images(images: Tensor, service: Service) -> Iterator[Sent]:
    """Yield images (N, C, S, S), uint8 or in [0, 1], of any side S, as they are sent, in order."""
    for part in images.split(CHUNK):
        pixels = part.float() / 255.0 if part.dtype == torch.uint8 else part.float()
        if pixels.shape[-1] != service.image_size:
            pixels = Resized(service.image_size)(pixels)
        pixels = pixels.clamp(0.0, 1.0)
        levels = pixels if service.encoding == "floats" else (pixels * 255.0).round().to(torch.uint8)
        for one in levels.cpu().numpy():
            yield Sent(sha256(np.ascontiguousarray(one).tobytes()), one)


def body_of(images: Sequence[Sent], service: Service) -> Body:
    """Return the body that asks for images, as many as a request of the service takes."""
    if service.body == "raw":
        return Body(_file(images[0], service), f"image/{service.encoding}")
    if service.body == "multipart":
        assert isinstance(service.request, dict)
        return _form(service.request, _file(images[0], service), service.encoding)
    filled = _filled(service.request, [_value(one, service) for one in images])
    return Body(json.dumps(filled).encode(), "application/json")


def _value(image: Sent, service: Service) -> Any:
    """Return what stands for an image in JSON: nested lists, or a file in base64."""
    if service.encoding != "floats":
        return base64.b64encode(_file(image, service)).decode()
    pixels = torch.from_numpy(image.pixels)[None]
    scaled = pixels if service.scaling == "unit" else Scaled(service.scaling)(pixels)
    order = (0, 2, 3, 1) if service.layout == "channels-last" else (0, 1, 2, 3)
    return scaled.permute(order)[0].tolist()


def _file(image: Sent, service: Service) -> bytes:
    """Return an image as a PNG or JPEG file, grey or RGB."""
    pixels = image.pixels[0] if service.channels == 1 else image.pixels.transpose(1, 2, 0)
    buffer = io.BytesIO()
    options = {"quality": JPEG_QUALITY, "subsampling": 0} if service.encoding == "jpeg" else {}
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format=service.encoding, **options)
    return buffer.getvalue()


def _filled(template: Any, values: Sequence[Any]) -> Any:
    """Return a template with the values in the places of its image: a list whose only entry holds it has an
    entry for each value, the rest of the template takes one."""
    if isinstance(template, str):
        return values[0] if template == IMAGE else template.replace(IMAGE, str(values[0]))
    if isinstance(template, dict):
        return {name: _filled(one, values) if holds_image(one) else one for name, one in template.items()}
    if is_row(template) and not _has_inner_row(template[0]):
        return [_filled(template[0], [value]) for value in values]
    if isinstance(template, list):
        return [_filled(one, values) if holds_image(one) else one for one in template]
    return template


def _has_inner_row(template: Any) -> bool:
    """Return whether a list inside is the one that gets an entry for each image."""
    if isinstance(template, dict):
        return any(map(_has_inner_row, template.values()))
    return isinstance(template, list) and (is_row(template) or any(map(_has_inner_row, template)))


def _form(fields: dict[str, Any], file: bytes, encoding: str) -> Body:
    """Return a multipart form (RFC 7578)."""
    boundary = f"form-{secrets.token_hex(16)}"
    lines: list[bytes] = []
    for name, value in fields.items():
        is_file = value == IMAGE
        quoted = name.replace("\\", "\\\\").replace('"', "%22")
        disposition = f'Content-Disposition: form-data; name="{quoted}"'
        lines.append(f"--{boundary}".encode())
        if is_file:
            lines.append(f'{disposition}; filename="image.{encoding}"'.encode())
            lines.append(f"Content-Type: image/{encoding}".encode())
        else:
            lines.append(disposition.encode())
        lines += [b"", file if is_file else str(value).encode()]
    lines += [f"--{boundary}--".encode(), b""]
    return Body(b"\r\n".join(lines), f"multipart/form-data; boundary={boundary}")

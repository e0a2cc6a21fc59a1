"""Images as a service gets them: resized, encoded, put into its request."""

import base64
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import urllib3
from PIL import Image
from torch import Tensor

from orchestrator.config.service import IMAGE, KEY, Service, holds_image, is_row
from orchestrator.models.inputs import Resized, Scaled
from orchestrator.store.blobs import sha256

CHUNK = 64  # images resized at a time
JPEG_QUALITY = 95
ROUNDING = 1e-5  # of a level of 256 that was divided by 255 on some device


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
    """Yield images (N, C, S, S), uint8 or in [0, 1], of any side S, as they are sent, in order.

    Their digests depend neither on the device nor on the layout in memory.
    """
    for part in images.split(CHUNK):
        pixels = _canonical(part)
        if pixels.shape[-1] != service.image_size:
            pixels = Resized(service.image_size)(pixels)
        pixels = pixels.clamp(0.0, 1.0)
        levels = pixels if service.encoding == "floats" else (pixels * 255.0).round().to(torch.uint8)
        for one in levels.numpy():
            yield Sent(sha256(np.ascontiguousarray(one).tobytes()), one)


def _canonical(images: Tensor) -> Tensor:
    """Return images as float32 in [0, 1] of one layout on the CPU, those of 256 levels from these levels.

    Resizing rounds differently in another layout, and so does dividing by 255 on another device: a pixel that
    falls on the other side of a half would make another image of it.
    """
    own = images.detach().cpu().clone(memory_format=torch.contiguous_format)
    if own.dtype == torch.uint8:
        return own.float() / 255.0
    pixels = own.float()
    levels = (pixels * 255.0).round() / 255.0
    is_of_levels = ((levels - pixels).abs() < ROUNDING).flatten(1).all(dim=1)
    return torch.where(is_of_levels[:, None, None, None], levels, pixels)


def body_of(images: Sequence[Sent], service: Service, key: str = "") -> Body:
    """Return the body that asks for images, as many as a request of the service takes, with the key in it."""
    template = _with_key(service.request, key)
    if service.body == "raw":
        return Body(_file(images[0], service), f"image/{service.encoding}")
    if service.body == "multipart":
        assert isinstance(template, dict)
        return _form(template, _file(images[0], service), service.encoding)
    filled = _filled(template, [_value(one, service) for one in images])
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


def _with_key(template: Any, key: str) -> Any:
    """Return a template with the key in its texts."""
    if isinstance(template, str):
        return template.replace(KEY, key)
    if isinstance(template, dict):
        return {name: _with_key(one, key) for name, one in template.items()}
    return [_with_key(one, key) for one in template] if isinstance(template, list) else template


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


def _form(fields: dict[str, str], file: bytes, encoding: str) -> Body:
    """Return a multipart form (RFC 7578)."""
    sent = (f"image.{encoding}", file, f"image/{encoding}")
    data, media_type = urllib3.encode_multipart_formdata(
        {name: sent if value == IMAGE else value for name, value in fields.items()}
    )
    return Body(data, media_type)

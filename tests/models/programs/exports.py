"""Files of `torch.export.save` for tests, and changes of what is in them."""

import io
import json
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.models.programs.files import rewritten


def exported(network: nn.Module, images: Tensor, *, is_dynamic: bool = True) -> bytes:
    """Return what `torch.export.save` writes of a network of images (N, C, S, S), of any N or of this."""
    shapes = ({0: torch.export.Dim("batch", min=1, max=65_536)},) if is_dynamic else None
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(network, (images,), dynamic_shapes=shapes), buffer)
    return buffer.getvalue()


def with_json(data: bytes, record: str, change: Callable[[Any], None]) -> bytes:
    """Return a program with a JSON record that was changed in place."""

    def changed(name: str, content: bytes) -> bytes:
        if name != record:
            return content
        value = json.loads(content)
        change(value)
        return json.dumps(value).encode()

    return rewritten(data, changed)

"""Modules of this process as programs: exported by torch.export, as bytes of what they compute alone.

torch.export refuses a module whose graph depends on its images, where a trace would follow the one path that
its example took. Paths and lines of the source, which the format keeps beside each operator, are left out:
the same weights and computation are the same bytes, whichever cell of a notebook has defined them.
"""

import copy
import io
import json
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.models.programs.archives import read_archive, write_archive
from orchestrator.models.programs.exported import MODEL

MOST = 65_536
"""Images that an exported module takes at once, at most."""

_LEFT_OUT = (".data/serialization_id",)  # a digest of the records as they were


def exported(module: nn.Module, images: Tensor) -> bytes:
    """Return a module of images (N, C, S, S), for any N, as a program of torch.export on the CPU.

    The module is left as it is. Raise `Refused` of `module` if a part of it is in training mode, or if
    torch.export cannot follow it.
    """
    training = next((name for name, part in module.named_modules() if part.training), None)
    if training is not None:
        what = f"has {training} in training mode" if training else "is in training mode"
        rule = f"{what}, where batch norms and dropout answer otherwise than in use"
        raise Refused("module", NO_VALUE, rule, "call module.eval() first")
    own = module if _is_on_cpu(module) else copy.deepcopy(module).cpu()
    buffer = io.BytesIO()
    any_number = ({0: torch.export.Dim("images", min=1, max=MOST)},)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(torch.export.export(own, (images.cpu(),), dynamic_shapes=any_number), buffer)
    except Exception as error:  # of torch's compiler, or whatever the module raises
        first = str(error).strip().partition("\n")[0][:200]
        rule = f"cannot be exported for {tuple(images.shape[1:])} images in any number"
        rule = f"{rule} ({type(error).__name__}: {first})"
        way_out = "correct its image size and channels, or save it yourself and stage it with --program"
        raise Refused("module", NO_VALUE, rule, way_out) from None
    return _plain(buffer.getvalue())


def _is_on_cpu(module: nn.Module) -> bool:
    return all(one.device.type == "cpu" for one in (*module.parameters(), *module.buffers()))


def _plain(data: bytes) -> bytes:
    """Return a program without what depends on where its source lies."""
    records = {name: one for name, one in read_archive(data, "module").items() if name not in _LEFT_OUT}
    description: dict[str, Any] = json.loads(records[MODEL])
    for node in description["graph_module"]["graph"]["nodes"]:
        node["metadata"] = {}
    records[MODEL] = json.dumps(description, sort_keys=True).encode()
    return write_archive(dict(sorted(records.items())))

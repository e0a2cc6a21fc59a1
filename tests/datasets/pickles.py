"""Pickles in the layout of NVIDIA's networks, written without NVIDIA's code: a network is rebuilt by
`torch_utils.persistence` from a dict with its class's source text and its attributes."""

import collections
import pickle
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

SOURCE = "class Generator:\n    pass\n"


def _reconstruct_persistent_obj(meta: object) -> object:
    raise AssertionError("the project's reader takes the place of this function")


class EasyDict(dict[str, Any]):
    """As `dnnlib.util`'s: a dict."""


class Network:
    """Attributes of a network, pickled as NVIDIA's decorator does."""

    def __init__(self, name: str = "Generator", source: str = SOURCE, **state: Any) -> None:
        self.name, self.source, self.state = name, source, state

    def __reduce__(self) -> tuple[Any, ...]:
        meta = {"type": "class", "version": 6, "module_src": self.source, "class_name": self.name}
        return _reconstruct_persistent_obj, ({**meta, "state": self.state},), None


@contextmanager
def nvidias_modules() -> Iterator[None]:
    """Let the names above be pickled as those of NVIDIA's modules."""
    places: dict[Any, str] = {_reconstruct_persistent_obj: "torch_utils.persistence", EasyDict: "dnnlib.util"}
    before = {thing: thing.__module__ for thing in places}
    for thing, path in places.items():
        thing.__module__ = path
        sys.modules[path.partition(".")[0]] = sys.modules[path] = module = ModuleType(path)
        setattr(module, thing.__name__, thing)
    try:
        yield
    finally:
        for thing, path in places.items():
            thing.__module__ = before[thing]
            del sys.modules[path], sys.modules[path.partition(".")[0]]


def layered(state: Mapping[str, Tensor], parameters: frozenset[str], **attributes: Any) -> Network:
    """Return nested networks with tensors by their dotted names."""
    inner: dict[str, dict[str, Tensor]] = {}
    own: dict[str, Tensor] = {}
    for name, tensor in state.items():
        first, _, rest = name.partition(".")
        if rest:
            inner.setdefault(first, {})[rest] = tensor
        else:
            own[name] = tensor
    kinds = {name: name in parameters for name in own}
    return Network(
        training=False,
        gain=np.sqrt(2.0),
        _parameters=collections.OrderedDict(
            (name, torch.nn.Parameter(own[name])) for name, learned in kinds.items() if learned
        ),
        _buffers=collections.OrderedDict((name, own[name]) for name, learned in kinds.items() if not learned),
        _non_persistent_buffers_set=set(),
        _modules=collections.OrderedDict((name, layered(part, parameters)) for name, part in inner.items()),
        **attributes,
    )


def generator_pickle(
    state: Mapping[str, Tensor], arguments: Mapping[str, Any], *, protocol: int = 4, **beside: Any
) -> bytes:
    """Return a pickle with the average generator, of these tensors, and what is `beside` it."""
    learned = frozenset({"weight", "bias", "const", "noise_strength"})
    network = layered(state, learned, _init_args=(), _init_kwargs=EasyDict(arguments))
    whole = {"G": None, "D": None, "G_ema": network, "training_set_kwargs": EasyDict(), **beside}
    with nvidias_modules():
        return pickle.dumps(whole, protocol=protocol)

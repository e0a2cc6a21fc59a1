"""NVIDIA's pickles of networks (StyleGAN2, StyleGAN2-ADA for PyTorch), read without running what is in them.

A pickle is a dict of networks (`G`, `D`, `G_ema`), each with its class's source text, which NVIDIA's loader
executes; here the text is dropped and the attributes are kept in a stand-in, as `checkpoint_files` keeps
those of a module that was saved whole. Ten names may be referred to, and each means a function of this file.
"""

import io
import math
import pickle
import pickletools
import struct
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from orchestrator.config.base import NO_VALUE, Refused, shortened
from orchestrator.datasets import checkpoint_files
from orchestrator.datasets.pickle_bounds import bounded

ARGUMENTS = "_init_kwargs"
"""Attribute of a network: the arguments that it was built with, by name."""

TORCH_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How a file of `torch.save` begins that is a pickle too."""

_DOWNLOAD = "do not load the file by other means; download it from its publisher again"
_CONVERT = "convert it with legacy.py of NVIDIA's stylegan2-ada-pytorch and stage what that writes"
_REFERRING = {"PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEXT_BUFFER", "READONLY_BUFFER"}
_NUMBERS = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i", "b1": "<?"}  # of numpy, as struct names them
_LARGEST_MEMO = 1 << 22


def is_plain_pickle(data: bytes) -> bool:
    """Return whether a file is a pickle that `torch.save` did not write."""
    return data.startswith(b"\x80") and not data.startswith(TORCH_MAGIC)


def read(data: bytes, where: str) -> object:
    """Return what a pickle holds, networks as stand-ins with the attributes `_parameters`, `_buffers`,
    `_modules` and `ARGUMENTS`.

    Raise `Refused` under the name `where`, which names what was refused, if the pickle refers to anything
    beside NVIDIA's networks and tensors, or is damaged.
    """
    try:
        _check_opcodes(data, where)
        with warnings.catch_warnings():  # that the kind of storage that such files have is deprecated
            warnings.simplefilter("ignore")
            return _Unpickler(data, where).load()
    except Refused:
        raise
    except Exception as error:  # pickle and torch raise a dozen kinds, depending on where a file is damaged
        rule = f"is no pickle of NVIDIA's networks, or damaged ({type(error).__name__})"
        raise Refused(where, NO_VALUE, rule, "download it again") from None


def _check_opcodes(data: bytes, where: str) -> None:
    """Refuse what needs no name, or takes memory that the file does not have: persistent ids, places in the
    memo beyond any network's, tuples of tuples without end."""
    for code, argument in bounded(pickletools.genops(data)):
        if code.name in _REFERRING:
            _refuse(where, f"the operation {code.name} of pickle")
        if code.name.endswith("PUT") and int(argument or 0) > _LARGEST_MEMO:
            _refuse(where, f"place {argument} of the memo")


def _refuse(where: str, what: str) -> NoReturn:
    raise Refused(where, NO_VALUE, f"asks for {shortened(what)}, which no network needs", _DOWNLOAD)


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows ten names, each of which means a method of it or a class of this load alone: a
    pickle can set attributes of a class that it is given."""

    def __init__(self, data: bytes, where: str) -> None:
        super().__init__(io.BytesIO(data))
        self._where, self._room = where, len(data)
        plain = type("Plain", (dict,), {"__setstate__": lambda mapping, state: None})
        self._known: Mapping[str, Callable[..., object]] = {
            "torch_utils.persistence._reconstruct_persistent_obj": self._network,
            "dnnlib.util.EasyDict": plain,
            "collections.OrderedDict": plain,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": self._parameter,
            "torch.storage._load_from_bytes": self._storage,
            "builtins.set": set,
            "numpy.core.multiarray.scalar": self._number,
            "numpy._core.multiarray.scalar": self._number,
            "numpy.dtype": self._kind,
        }

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name means here; raise `Refused` for any other name."""
        full = f"{module}.{name}"
        if full in self._known:
            return self._known[full]
        if full.startswith("dnnlib.tflib."):
            rule = f"holds a network of TensorFlow ({shortened(full)}), whose code would have to run"
            raise Refused(self._where, NO_VALUE, rule, _CONVERT)
        _refuse(self._where, full)

    def persistent_load(self, pid: object) -> NoReturn:
        """Raise `Refused`: no network refers to objects outside its file."""
        _refuse(self._where, "a persistent id")

    def _network(self, meta: Mapping[str, Any]) -> "Counter[object]":
        made: Counter[object] = Counter()
        vars(made).update({name: value for name, value in meta["state"].items() if isinstance(name, str)})
        return made

    def _storage(self, data: bytes) -> object:
        loaded = checkpoint_files.read(data, self._where)
        if not isinstance(loaded, torch.storage.TypedStorage):
            _refuse(self._where, f"a storage that is a {type(loaded).__name__}")
        self._room -= loaded.nbytes()
        if self._room < 0:  # the bytes of a storage may be read again and again
            _refuse(self._where, "more bytes of storages than the file has")
        return loaded

    def _tensor(
        self, storage: Any, offset: int, size: Sequence[int], stride: Sequence[int], *_: object
    ) -> Tensor:
        last = offset + sum((one - 1) * step for one, step in zip(size, stride, strict=True))
        if min(offset, *size, *stride, 0) < 0 or max(last + 1, math.prod(size)) > storage.size():
            what = f"a tensor of {math.prod(size)} numbers in a storage of {storage.size()}"
            _refuse(self._where, what)
        empty = torch.empty(0, dtype=storage.dtype)
        return empty.set_(storage, offset, tuple(size), tuple(stride))

    def _parameter(self, data: object, *_: object) -> Tensor:
        if not isinstance(data, Tensor):
            _refuse(self._where, f"a parameter of a {type(data).__name__}")
        return data

    def _kind(self, code: object, *_: object) -> "_Kind":
        if not isinstance(code, str) or code not in _NUMBERS:
            _refuse(self._where, "an array of numpy, or a number of a kind")
        return _Kind(_NUMBERS[code])

    def _number(self, kind: "_Kind", data: bytes) -> object:
        return struct.unpack(kind.code, data)[0]


class _Kind:
    """A type of numpy's numbers, as struct names it; its byte order is not read."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        pass

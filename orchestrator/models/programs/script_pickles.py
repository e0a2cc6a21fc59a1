"""Pickles in TorchScript programs (`data.pkl`, `constants.pkl`), interpreted without Python's pickle.

torch reads them by a reader of its own that takes the file's word for the size of each storage and for where
a tensor lies in it. Here the thirty operations that torch writes are followed on plain values: every class
must be the program's own, every tensor must lie in bytes that the archive has, nothing may hold itself.
"""

import math
import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from orchestrator.config.base import NO_VALUE, Refused, shortened
from orchestrator.models.programs.script_text import MAX_DEPTH, check_class, check_text
from orchestrator.models.programs.script_types import DICT, LIST, Declared, Held, Value, check_types

_ITEM_BYTES = {
    "torch DoubleStorage": 8,
    "torch FloatStorage": 4,
    "torch HalfStorage": 2,
    "torch BFloat16Storage": 2,
    "torch LongStorage": 8,
    "torch IntStorage": 4,
    "torch ShortStorage": 2,
    "torch CharStorage": 1,
    "torch ByteStorage": 1,
    "torch BoolStorage": 1,
}
_ITEMS = {"int": "int", "double": "float", "bool": "bool", "tensor": "Tensor", "string": "str"}
_LISTS = {f"torch.jit._pickle build_{kind}list": f"List[{item}]" for kind, item in _ITEMS.items()}
_TENSOR, _DICT = "torch._utils _rebuild_tensor_v2", "collections OrderedDict"
_TYPED, _DEVICE = "torch.jit._pickle restore_type_tag", "torch device"
_KNOWN = frozenset({*_ITEM_BYTES, *_LISTS, _TENSOR, _DICT, _TYPED, _DEVICE})
_DEVICE_NAME = re.compile(r"cpu|cuda(:[0-9]{1,3})?")
_MAX_MEMO = 1 << 22
_GET_IT = "get the file from its publisher again, or save the network again with torch.jit.save"


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass(frozen=True)
class _Storage:
    items: int


_MARK = object()


def check_pickle(
    data: bytes, records: Mapping[str, bytes], folder: str, where: str, declared: Declared
) -> None:
    """Raise `Refused` under the name `where` if a pickle asks for more than its program's own classes, as its
    code declares them, and tensors, whose bytes are the `records` of `folder`, or if it is damaged."""
    machine = _Machine(records, folder, where)
    try:
        result = machine.run(data)
        _check_depth(result, where)
        check_types(machine.held, declared, where, machine.tagged)
    except Refused:
        raise
    except Exception as error:  # a damaged pickle may miss anything anywhere
        rule = f"holds a {folder}.pkl that is damaged ({type(error).__name__})"
        raise Refused(where, NO_VALUE, rule, _GET_IT) from None


class _Machine:
    """The operations that torch writes, on a stack and a memo of plain values."""

    def __init__(self, records: Mapping[str, bytes], folder: str, where: str) -> None:
        self._records, self._folder, self._where = records, folder, where
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self.held: list[Held] = []
        self.tagged: list[tuple[Any, str]] = []  # values, and the types that the pickle says they have
        self._of: Mapping[str, Callable[[Any], None]] = {
            "NONE": lambda _: self._push(None),
            "NEWTRUE": lambda _: self._push(True),
            "NEWFALSE": lambda _: self._push(False),
            **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"), self._push),
            "MARK": lambda _: self._push(_MARK),
            "EMPTY_TUPLE": lambda _: self._push(()),
            "TUPLE": lambda _: self._push(tuple(self._marked())),
            "TUPLE1": lambda _: self._push(self._last(1)),
            "TUPLE2": lambda _: self._push(self._last(2)),
            "TUPLE3": lambda _: self._push(self._last(3)),
            "EMPTY_LIST": lambda _: self._push(self._new(LIST)),
            "EMPTY_DICT": lambda _: self._push(self._new(DICT)),
            "APPEND": lambda _: self._add(self._last(1)),
            "APPENDS": lambda _: self._add(self._marked()),
            "SETITEM": lambda _: self._add(self._last(2)),
            "SETITEMS": lambda _: self._add(self._marked()),
            **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda place: self._push(self._memo[place])),
            **dict.fromkeys(("BINPUT", "LONG_BINPUT"), self._keep),
            "GLOBAL": self._global,
            "BINPERSID": lambda _: self._push(self._storage(*self._last(1))),
            "REDUCE": lambda _: self._push(self._call(*self._last(2))),
            "NEWOBJ": lambda _: self._push(self._made(*self._last(2))),
            "BUILD": lambda _: self._add(self._last(1)),
        }

    def run(self, data: bytes) -> object:
        """Return the value that a pickle makes, made of tuples, holders and plain values."""
        for code, argument, place in pickletools.genops(data):
            if code.name == "PROTO" and argument == 2 and place == 0:
                continue
            if code.name == "STOP":
                (result,) = self._stack
                return result
            if code.name not in self._of:
                self._refuse(f"the operation {code.name} of pickle")
            self._of[code.name](argument)
        raise ValueError("a pickle without its end")

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _new(self, kind: str) -> Held:
        self.held.append(Held(kind))
        return self.held[-1]

    def _last(self, count: int) -> tuple[Any, ...]:
        """Take values from the stack."""
        taken = tuple(self._stack[-count:])
        if len(taken) != count or any(one is _MARK for one in taken):
            raise ValueError("an operation without its values")
        del self._stack[-count:]
        return taken

    def _marked(self) -> list[Any]:
        """Take the values behind the last mark, and the mark."""
        taken = []
        while (one := self._stack.pop()) is not _MARK:
            taken.append(one)
        return taken[::-1]

    def _add(self, values: tuple[Any, ...] | list[Any]) -> None:
        holder = self._stack[-1]
        if not isinstance(holder, Held):
            self._refuse(f"to fill a {type(holder).__name__}")
        holder.content += values

    def _keep(self, place: int) -> None:
        if not 0 <= place <= _MAX_MEMO:
            self._refuse(f"place {place} of the memo")
        if self._stack[-1] is _MARK:
            raise ValueError("a mark is no value")
        self._memo[place] = self._stack[-1]

    def _global(self, name: str) -> None:
        if name.startswith("__torch__"):
            check_class(name.replace(" ", "."), self._where)
        elif name not in _KNOWN:
            self._refuse(name.replace(" ", "."))
        self._push(_Global(name))

    def _storage(self, pid: object) -> _Storage:
        match pid:
            case ("storage", _Global(kind), str(key), str(device), int(items)) if kind in _ITEM_BYTES:
                pass
            case _:
                self._refuse("a persistent id that is no storage")
        content = self._records.get(f"{self._folder}/{key}", b"" if items == 0 else None)
        if content is None or items < 0 or items * _ITEM_BYTES[kind] != len(content):
            has = "none" if content is None else str(len(content))
            self._refuse(f"{items} numbers of storage {shortened(key)}, which has {has} bytes")
        if _DEVICE_NAME.fullmatch(device) is None:
            self._refuse(f"the device {device}")
        return _Storage(items)

    def _call(self, called: object, arguments: object) -> object:
        name = called.name if isinstance(called, _Global) else ""
        result: object = None
        match name, arguments:
            case "torch._utils _rebuild_tensor_v2", (_Storage(items), offset, size, stride, *_):
                self._check_tensor(items, offset, size, stride)
                result = Value("Tensor")
            case "collections OrderedDict", ():
                result = self._new(DICT)
            case "torch.jit._pickle restore_type_tag", (value, str(kind)):
                check_text(kind, self._where)
                result = value
                self.tagged.append((value, kind))
            case "torch device", (str(device),) if _DEVICE_NAME.fullmatch(device):
                result = Value("Device")
            case _, (value,) if name in _LISTS:
                result = value
                self.tagged.append((value, _LISTS[name]))
            case _:
                self._refuse(f"a call of {name.replace(' ', '.') or 'a value'}")
        return result

    def _check_tensor(self, items: int, offset: Any, size: Any, stride: Any) -> None:
        last = offset + sum((one - 1) * step for one, step in zip(size, stride, strict=True))
        numbers = math.prod(size)
        if min(offset, *size, *stride, 0) < 0 or (numbers and max(last + 1, numbers) > items):
            self._refuse(f"a tensor of {numbers} numbers in a storage of {items}")

    def _made(self, kind: object, arguments: object) -> Held:
        if not isinstance(kind, _Global) or not kind.name.startswith("__torch__") or arguments != ():
            self._refuse("an object of no class of the program")
        return self._new(kind.name.replace(" ", "."))

    def _refuse(self, what: str) -> NoReturn:
        rule = f"asks in {self._folder}.pkl for {shortened(what)}, which no program of torch.jit.save needs"
        raise Refused(self._where, NO_VALUE, rule, _GET_IT)


def _check_depth(result: object, where: str) -> None:
    """Refuse values that hold themselves, or each other too deep: torch calls itself for each level."""
    depths: dict[int, int | None] = {}  # None: its parts are not all counted
    waiting = [result]
    while waiting:
        value = waiting[-1]
        parts = value.content if isinstance(value, Held) else value if isinstance(value, tuple) else ()
        if id(value) in depths:
            waiting.pop()
            known = [depths.get(id(one), 0) for one in parts]
            if depths[id(value)] is None:
                depth = 1 + max((one or 0 for one in known), default=0)
                depths[id(value)] = depth
                if depth > MAX_DEPTH:
                    rule = f"holds values that lie in each other {MAX_DEPTH} deep"
                    raise Refused(where, NO_VALUE, rule, _GET_IT)
            continue
        depths[id(value)] = None
        inner = [one for one in parts if isinstance(one, Held | tuple)]
        if any(depths.get(id(one), 0) is None for one in inner):
            raise Refused(where, NO_VALUE, "holds a value that holds itself", _GET_IT)
        waiting += inner

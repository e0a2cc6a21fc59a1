"""Operators that a function runs, by their names: which copy to a device or make the host wait for it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Operators(TorchDispatchMode):
    """A context that keeps the names of the operators inside it: `aten.lift_fresh.default` where a tensor is
    made of numbers of Python's."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))

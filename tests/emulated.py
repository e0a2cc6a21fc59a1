"""A device that is emulated on the CPU, to see without an accelerator what one would refuse or wait for.

Tensors on it hold a CPU tensor, with which every operation is computed, so that values are real ones. As on
CUDA, an operation on tensors of the device and of the CPU is an error, and random numbers, indices and copies
between both are made where the code asks for them. `transfers` counts what lets a host wait for its device:

    read   a number, a copy or a shape (of a mask, of unique values) that the host takes from the device
    write  a tensor of the host's that is copied to the device

torch's python backend of the `privateuseone` key stands behind it; nothing of CUDA's own kernels does.
"""

import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "emulated"
aten = torch.ops.aten
READS = {  # operations whose result's shape or value the host needs to go on
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_consecutive,
    aten.unique_dim,
    aten.equal,
    aten.bincount,
    aten._linalg_check_errors,
}
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}
IN_BFLOAT16 = (  # AT_FORALL_LOWER_PRECISION_FP of torch's ATen/autocast_mode.h
    *("_convolution", "_convolution.deprecated", "convolution"),
    *("cudnn_convolution", "cudnn_convolution_transpose"),
    *("conv1d", "conv2d", "conv3d", "conv_tbc"),
    *("conv_transpose1d", "conv_transpose2d.input", "conv_transpose3d.input"),
    *("prelu", "linear", "matmul", "einsum", "mm", "mv", "addmm", "addmv", "addr", "linalg_vecdot"),
    *("bmm", "addbmm", "baddbmm", "chain_matmul", "linalg_multi_dot"),
    *("_thnn_fused_lstm_cell", "_thnn_fused_gru_cell", "lstm_cell", "gru_cell"),
    *("rnn_tanh_cell", "rnn_relu_cell"),
    *("_scaled_dot_product_flash_attention", "scaled_dot_product_attention"),
)
PROMOTED = (  # AT_FORALL_PROMOTE: operands are cast to the widest type among them
    *("addcdiv", "addcmul", "atan2", "bilinear", "cross", "dot", "vdot"),
    *("grid_sampler", "index_put", "tensordot", "scatter_add"),
)
AUTOCAST = "AutocastPrivateUse1"
KEPT: list[torch.library.Library] = []  # a library that is dropped takes its functions with it
COPIES = {aten.copy_, aten._to_copy}


class Backend:
    """What torch asks of the module of a device."""

    def is_initialized(self) -> bool:
        """Return True: there is nothing to start."""
        return True

    def is_available(self) -> bool:
        """Return True."""
        return True

    def current_device(self) -> int:
        """Return 0, the only one."""
        return 0

    def device_count(self) -> int:
        """Return 1."""
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """Do nothing: numbers are drawn from the CPU's generator."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """Return what autocast may use."""
        return [torch.bfloat16]


@cache
def device() -> torch.device:
    """Return the device. The first call of a process registers it, before any gradient is computed there:
    autograd starts a thread for each device that it finds then."""
    _setup_privateuseone_for_python_backend(NAME, Backend())
    library = torch.library.Library("_", "IMPL", AUTOCAST)
    library.fallback(torch.library.fallthrough_kernel)
    casts = torch.library.Library("aten", "IMPL", AUTOCAST)
    for names, cast in ((IN_BFLOAT16, _lowered), (PROMOTED, _promoted)):
        for name in names:
            packet, _, overload = name.partition(".")
            casts.impl(name, partial(_autocast, getattr(getattr(aten, packet), overload or "default"), cast))
    KEPT.extend([library, casts])
    return torch.device(NAME, 0)


def _autocast(func: Any, cast: Callable[[Any], Any], *args: Any, **kwargs: Any) -> Any:
    """Cast operands on the device, as autocast does on CUDA."""
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, AUTOCAST))
    with torch._C._ExcludeDispatchKeyGuard(keys):
        return func(*cast(args), **kwargs)


def _lowered(args: Any) -> Any:
    """Return the arguments with float32 operands as bfloat16."""
    return _cast(args, torch.float32, torch.bfloat16)


def _promoted(args: Any) -> Any:
    """Return the arguments with bfloat16 operands as float32 where another one is float32."""
    has_wide = any(isinstance(one, Tensor) and one.dtype == torch.float32 for one in tree_flatten(args)[0])
    return _cast(args, torch.bfloat16, torch.float32) if has_wide else args


def _cast(args: Any, given: torch.dtype, wanted: torch.dtype) -> Any:
    def cast(value: Any) -> Any:
        is_given = isinstance(value, Tensor) and value.dtype == given and value.device.type == NAME
        return value.to(wanted) if is_given else value

    return tree_map(cast, args)


class Placed(Tensor):
    """A tensor of any shape on the device; `held` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Placed":
        made: Placed = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=device(),
        )
        made.held = held
        return made

    def __init__(self, held: Tensor) -> None:
        """`held`: on the CPU, without gradient."""

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Placed({self.held!r})"

    def tolist(self) -> Any:
        """Return the values, which the host reads for that."""
        return self.cpu().tolist()

    @property
    def data(self) -> Tensor:
        """Return the values without gradient, in the same memory."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        assert isinstance(value, Placed)
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.held = value.held

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return computed(func, args, kwargs or {}, Counter())


def computed(
    func: Any,
    args: Any,
    kwargs: Mapping[str, Any],
    transfers: Counter[str],
    again: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Any:
    """Return an operation's result, on the device it belongs to; count what it moves. `again`: the context of
    the operations that it consists of."""
    leaves = tree_flatten((args, kwargs))[0]
    given = [one for one in leaves if isinstance(one, Tensor)]
    placed = [one for one in given if isinstance(one, Placed)]
    names_it = any(isinstance(one, torch.device) and one.type == NAME for one in leaves)
    if not placed and not names_it:
        return func(*args, **kwargs)
    if _is_composite(func):  # in inference mode these come whole
        with again():
            return func.decompose(*args, **kwargs)
    packet, wanted = func._overloadpacket, kwargs.get("device")
    is_made_here = wanted is not None and torch.device(wanted).type == NAME
    _count(packet, args, placed, is_made_here, wanted, transfers)
    if packet not in COPIES | INDEXED:
        _require_one_device(func, given, placed)
    result = func(*tree_map(_held, args), **{**tree_map(_held, dict(kwargs)), **_at(wanted)})
    is_host = packet is aten._local_scalar_dense or (wanted is not None and not is_made_here)
    is_host |= packet is aten.copy_ and not isinstance(args[0], Placed)
    if is_host:
        return args[0] if packet is aten.copy_ else result
    made = tree_map(lambda one: Placed(one) if isinstance(one, Tensor) else one, result)
    return return_and_correct_aliasing(func, args, dict(kwargs), made)


@cache
def _is_composite(func: Any) -> bool:
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key)


def _at(wanted: Any) -> dict[str, torch.device]:
    return {} if wanted is None else {"device": torch.device("cpu")}


def _held(value: Any) -> Any:
    return value.held if isinstance(value, Placed) else value


def _count(
    packet: Any, args: Any, placed: Sequence[Tensor], is_made_here: bool, wanted: Any, transfers: Counter[str]
) -> None:
    if packet in READS:
        transfers[_where("read", packet)] += 1
    elif packet is aten._to_copy and wanted is not None and is_made_here != bool(placed):
        transfers[_where("write" if is_made_here else "read", packet)] += 1
    elif packet is aten.copy_ and isinstance(args[0], Placed) != isinstance(args[1], Placed):
        transfers[_where("write" if isinstance(args[0], Placed) else "read", packet)] += 1
    elif packet in INDEXED:
        for index in filter(lambda one: isinstance(one, Tensor), args[1]):
            if index.dtype in (torch.bool, torch.uint8):
                transfers[_where("read", packet)] += 1
            elif not isinstance(index, Placed):
                transfers[_where("write", packet)] += 1


def _require_one_device(func: Any, given: Sequence[Tensor], placed: Sequence[Tensor]) -> None:
    """Raise as CUDA does for operands of two devices; a number that is a CPU tensor is passed by value."""
    others = [one for one in given if not isinstance(one, Placed) and one.dim()]
    if placed and others:
        raise RuntimeError(
            f"Expected all tensors to be on the same device: {func} was given {NAME}:0 and cpu"
            f"; {[tuple(one.shape) for one in given]}"
        )


def _where(kind: str, packet: Any) -> str:
    """Name a transfer by the line of the project that it is for."""
    frames = traceback.extract_stack()
    ours = [one for one in frames if "/orchestrator/" in one.filename or "/benchmarks/" in one.filename]
    place = ours[-1] if ours else frames[0]
    return f"{kind} {packet.__name__} at {place.filename.partition('/orchestrator/')[2]}:{place.lineno}"


class Watch(TorchDispatchMode):
    """Computes operations on the device and counts its transfers by kind and place."""

    def __init__(self) -> None:
        super().__init__()
        device()
        self.transfers: Counter[str] = Counter()

    def __enter__(self) -> "Watch":
        # torch.tensor(..., device=...) makes its tensor on the CPU first, where this mode sees it leave.
        self._lifts = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(self._lifts)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return computed(func, args, kwargs or {}, self.transfers, lambda: self)

    @contextmanager
    def counted(self) -> Iterator[Counter[str]]:
        """Count the transfers within the context alone."""
        before, counted = self.transfers.copy(), Counter[str]()
        yield counted
        counted.update(self.transfers - before)

"""Pickles of TorchScript, followed operation by operation: what torch writes is good, all else is refused."""

import pickle
from collections.abc import Callable, Mapping

import pytest
from torch import nn

from orchestrator.config.base import Refused
from orchestrator.models.programs.script_pickles import check_pickle
from tests.models.programs import files

STORAGE = b"ctorch\nFloatStorage\n"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def storage(items: int, key: str = "0", device: str = "cpu") -> bytes:
    """Return the operations of a persistent id."""
    number = b"J" + items.to_bytes(4, "little", signed=True)
    return b"(" + text("storage") + STORAGE + text(key) + text(device) + number + b"tQ"


def tensor(items: int, offset: int, size: int, stride: int) -> bytes:
    """Return the operations of a tensor of one dimension."""
    return (
        TENSOR + b"(" + storage(items) + b"K" + bytes([offset]) + b"K" + bytes([size]) + b"\x85K"
        + bytes([stride]) + b"\x85\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip


def check(operations: bytes, records: Mapping[str, bytes] | None = None) -> None:
    held = {"data/0": bytes(16)} if records is None else records
    check_pickle(b"\x80\x02" + operations + b".", held, "data", "x", {})


@pytest.mark.parametrize("form", [files.scripted, files.frozen])
def test_what_torch_writes_is_good(form: Callable[[nn.Module], bytes]) -> None:
    data = form(files.Small())
    for folder in ("data", "constants"):
        names = {f"{folder}/{place}" for place in range(20)}
        held = {name: files.record(data, name) for name in names if _holds(data, name)}
        check_pickle(files.record(data, f"{folder}.pkl"), held, folder, "x", files.declared(data))


def _holds(data: bytes, name: str) -> bool:
    try:
        files.record(data, name)
    except StopIteration:
        return False
    return True


def test_a_tensor_lies_in_its_bytes() -> None:
    check(tensor(4, 0, 4, 1))
    check(tensor(4, 1, 2, 2))


@pytest.mark.parametrize(
    ("operations", "rule"),
    [
        (storage(5), "5 numbers of storage 0, which has 16 bytes"),
        (storage(-1), "-1 numbers of storage 0"),
        (storage(4, key="1"), "4 numbers of storage 1, which has none bytes"),
        (storage(4, key="../0"), r"4 numbers of storage \.\./0"),
        (storage(4, device="cpu:evil"), "the device cpu:evil"),
        (tensor(4, 1, 4, 1), "a tensor of 4 numbers in a storage of 4"),
        (tensor(4, 0, 100, 0), "a tensor of 100 numbers in a storage of 4"),
        (b"cos\nsystem\n", r"os\.system"),
        (b"cbuiltins\neval\n", r"builtins\.eval"),
        (b"ctorch\nFloatStorage\n)\x81", "an object of no class of the program"),
        (b"c__torch__.net\nNet\n)R", r"a call of __torch__\.net\.Net"),
        (b"ios\nsystem\n", "the operation INST"),
        (b"Vx\np0\n", "the operation UNICODE"),
        (b"\x8c\x01x", "the operation SHORT_BINUNICODE"),
        (b"c__torch__.net\nNet\n)\x81r\xff\xff\xff\xff", "place 4294967295 of the memo"),
        (b"K\x01]a", "to fill a int"),
    ],
)
def test_what_no_program_needs_is_refused(operations: bytes, rule: str) -> None:
    with pytest.raises(Refused, match=rf"^x .*({rule})"):
        check(operations)


def test_a_custom_class_is_refused_by_its_name() -> None:
    with pytest.raises(Refused, match=r"^x asks for the custom class torch\.classes\.evil\.Loader, which"):
        check(b"c__torch__.torch.classes.evil\nLoader\n")


@pytest.mark.parametrize(
    ("operations", "rule"),
    [
        (b"]q\x00h\x00a", "holds a value that holds itself"),
        (b"]q\x00(h\x00te", "damaged"),
        (b"]" * 300 + b"a" * 299, "lie in each other 200 deep"),
        (b"", r"damaged \(ValueError\)"),
        (b"h\x07", r"damaged \(KeyError\)"),
        (b"t", "damaged"),
        (b"(q\x00", r"damaged \(ValueError\)"),
    ],
)
def test_values_without_end_and_damage_are_refused(operations: bytes, rule: str) -> None:
    with pytest.raises(Refused, match=f"^x .*{rule}"):
        check(operations)


def test_small_tuples_that_unfold_to_billions_cost_nothing() -> None:
    twice = b"".join(b"q" + bytes([one]) + b"h" + bytes([one]) + b"\x86" for one in range(50))
    check(b")" + twice)


def test_a_pickle_of_another_protocol_is_refused() -> None:
    with pytest.raises(Refused, match=r"^x .*the operation"):
        check_pickle(pickle.dumps([1], protocol=4), {}, "data", "x", {})

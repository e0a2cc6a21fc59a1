"""Operators that programs may call: names of torch, none of which takes a path."""

import torch

from orchestrator.models.programs.operators import LANGUAGE, PRIMITIVES, STRUCTURE, TENSORS

TOUCHING = (
    "from_file",
    "save",
    "manual_seed",
    "set_",
    "as_strided",
    "resize_",
    "record_stream",
    "pin_memory",
)


def test_every_name_is_one_of_torch_or_of_its_texts() -> None:
    known = {schema.name for schema in torch._C._jit_get_all_schemas()}
    odd = {name for name in TENSORS | LANGUAGE if f"aten::{name}" not in known}
    assert odd <= {"is_scripting", "normalize", "softsign"}  # compiled away


def test_no_operator_takes_the_name_of_a_file() -> None:
    paths = {"filename", "file", "file_name"}
    for schema in torch._C._jit_get_all_schemas():
        space, _, name = schema.name.partition("::")
        if space == "aten" and name in TENSORS | LANGUAGE:
            assert paths.isdisjoint(argument.name for argument in schema.arguments), schema.name


def test_what_touches_more_than_tensors_is_not_there() -> None:
    assert TENSORS.isdisjoint(TOUCHING)
    assert LANGUAGE.isdisjoint(TOUCHING)
    assert (PRIMITIVES | STRUCTURE).isdisjoint({"Print", "PythonOp", "IgnoredPythonOp", "fork", "rpc_async"})


def test_what_reads_memory_of_sizes_that_it_does_not_check_is_not_there() -> None:
    assert not [name for name in TENSORS if "flash_attention" in name]
    assert {name for name in TENSORS if "batch_norm" in name} == {"batch_norm"}

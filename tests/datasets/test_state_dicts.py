"""State dicts in checkpoints: the network that is meant, and a refusal with names where several are."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets.state_dicts import check_sizes, choose

NET = {"conv.weight": torch.ones(2, 2), "conv.bias": torch.zeros(2)}
OTHER = {name: tensor + 1 for name, tensor in NET.items()}
HEAD = {"weight": torch.ones(3, 2)}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def check(tensors: Mapping[str, Tensor]) -> None:
    """Take tensors of the names of NET only."""
    if tensors.keys() != NET.keys():
        raise Refused("weights net", NO_VALUE, f"have {len(tensors)} tensors", "choose others")


def assert_net(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor] = NET) -> None:
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "module._orig_mod.model."])
def test_the_trainers_wrappers_are_dropped(prefix: str) -> None:
    for checked in (None, check):
        assert_net(choose({"state_dict": under(prefix, NET)}, "x", check=checked))


def test_a_prefix_that_is_not_common_stays() -> None:
    mixed = {**under("model.", NET), "criterion.weight": torch.ones(1)}
    assert_net(choose(mixed, "x"), mixed)


@pytest.mark.parametrize(
    "loaded",
    [
        {"state_dict": NET, "head": HEAD},
        {**under("encoder.net.", NET), "criterion.weight": torch.ones(1)},
        {**NET, "best": torch.tensor(0.9)},
        {"nets": {"a": under("backbone.", NET)}, "optimizer": {"state": {0: {"exp_avg": torch.ones(9)}}}},
        {"model": NET, "ema": {name: tensor.clone() for name, tensor in NET.items()}},
    ],
    ids=["beside a head", "prefix", "loose scalar", "own prefix", "equal copies"],
)
def test_the_entry_that_fits_is_found(loaded: Any) -> None:
    assert_net(choose(loaded, "x", check=check))


@pytest.mark.parametrize("checked", [None, check])
def test_loose_tensors_beside_a_state_dict_never_win(checked: Any) -> None:
    """As torchvision's reference training saves them, and more of them than the network has."""
    loose = {name: torch.tensor(93.5) for name in ("best_acc1", "best_acc5", "epoch", "lr", "loss")}
    assert_net(choose({**loose, "state_dict": NET}, "x", check=checked))
    assert_net(choose({"state_dict": NET, **loose}, "x", check=checked))


SEVERAL = {
    "entries": {"student": NET, "teacher": OTHER},
    "prefixes": {**under("student.", NET), **under("teacher.", OTHER)},
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_networks_are_refused_with_names_and_chosen_by_name(kind: str) -> None:
    networks = r"student \(2 tensors\), teacher \(2 tensors\)"
    with pytest.raises(
        ValueError, match=rf"^x holds several networks: {networks}; choose one with --entry\.$"
    ):
        choose(SEVERAL[kind], "x", check=check)
    for checked in (None, check):
        assert_net(choose(SEVERAL[kind], "x", "student", checked))
        assert_net(choose(SEVERAL[kind], "x", "teacher", checked), OTHER)


def test_networks_of_two_sizes_are_ambiguous_without_an_architecture() -> None:
    with pytest.raises(ValueError, match=r"networks: \(top\) \(1 tensors\), net \(2 tensors\); choose one"):
        choose({**HEAD, "net": OTHER}, "x")
    assert_net(choose({**HEAD, "net": OTHER}, "x", "(top)"), HEAD)


def test_an_unknown_entry_lists_the_known() -> None:
    with pytest.raises(
        ValueError, match=r"^--entry=G is no entry of x, which has \(top\), D; choose one of them\.$"
    ):
        choose({"step": torch.ones(1), "D": NET}, "x", "G")


def test_weights_that_fit_nothing_are_refused_as_the_check_does() -> None:
    with pytest.raises(ValueError, match=r"^weights net have 3 tensors; choose others\.$"):
        choose({"model": {**NET, "more": torch.ones(2)}, "best": torch.ones(1)}, "x", check=check)


def test_objects_that_refer_to_each_other_are_read_once() -> None:
    loop: dict[str, Any] = {"net": NET}
    loop["self"] = loop
    assert_net(choose(loop, "x"))


ENTRIES = 1 << 18
"""Numbers of float32 that take a megabyte, which every file is free to mean."""


@pytest.mark.parametrize(
    "loaded",
    [
        {"net": {"weight": torch.zeros(1).expand(3 * ENTRIES)}},
        {f"{n}.weight": torch.zeros(ENTRIES) for n in "abc"},
    ],
    ids=["one number", "one storage"],
)
def test_tensors_that_would_fill_more_memory_than_the_file_can_mean(loaded: Any) -> None:
    text = (
        r"^x has 9999 bytes, and its tensors would take 3145728; save a state dict of tensors that hold all"
    )
    with pytest.raises(ValueError, match=text):
        check_sizes(loaded, 9_999, "x")
    check_sizes(loaded, 3 << 20, "x")
    check_sizes({"weight": torch.zeros(ENTRIES)}, 100, "x")

"""Operators that trust sizes: the same results as torch's, and an error where they would read too far."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from orchestrator.config.base import Refused
from orchestrator.models.programs import load_program
from orchestrator.models.programs.exported import MODEL
from orchestrator.models.programs.operators import TENSORS
from orchestrator.models.programs.torchscript import load_torchscript
from orchestrator.models.programs.trusting import TRUSTING, batch_norm, weight_norm
from tests.models.programs import files
from tests.models.programs.exports import exported, with_json
from tests.models.programs.test_torchscript import IMAGES

FACTS = files.FACTS.but(kind="export")


def norm(channels: int) -> dict[str, Any]:
    """Return the arguments of a batch norm of images of four channels."""
    vectors = {name: torch.rand(channels) + 1 for name in ("weight", "bias", "running_mean", "running_var")}
    return {"input": torch.rand(2, 4, 3, 3), **vectors, "momentum": 0.1, "eps": 1e-5}


def test_of_right_sizes_they_are_torchs() -> None:
    given = norm(4)
    vectors = (given[name] for name in ("running_mean", "running_var", "weight", "bias"))
    assert torch.allclose(batch_norm(**given)[0], nn.functional.batch_norm(given["input"], *vectors))
    weight, lengths = torch.rand(4, 3), torch.rand(4, 1)
    wanted = weight * lengths / weight.norm(dim=1, keepdim=True)
    assert torch.allclose(weight_norm(v=weight, g=lengths, dim=0), wanted)


def test_of_wrong_sizes_they_are_errors() -> None:
    with pytest.raises(ValueError, match=r"^weight \(2,\) of a batch norm of 4 channels$"):
        batch_norm(**norm(2))
    with pytest.raises(ValueError, match=r"^2 lengths of 4 rows of a weight norm$"):
        weight_norm(v=torch.rand(4, 3), g=torch.rand(2, 1), dim=0)


def test_an_exported_graph_calls_them_behind_the_check() -> None:
    network = files.Small().eval()
    data = exported(network, IMAGES)

    def trusts(value: Any, statistics: int) -> None:
        for node in value["graph_module"]["graph"]["nodes"]:
            if "batch_norm" in node["target"]:
                node["target"] = "torch.ops.aten._native_batch_norm_legit_no_training.default"
                kept = {"input", "weight", "bias", "running_mean", "running_var", "momentum", "eps"}
                node["inputs"] = [one for one in node["inputs"] if one["name"] in kept]
                (result,) = node["outputs"]
                node["outputs"] = [result, {"as_none": True}, {"as_none": True}]
                if statistics:
                    node["inputs"][3]["arg"] = {"as_tensor": {"name": "p_fc_bias"}}

    right, wrong = (with_json(data, MODEL, partial(trusts, statistics=one)) for one in (0, 1))
    assert torch.allclose(load_program(right, FACTS)(IMAGES), network(IMAGES), atol=1e-6)
    with pytest.raises(ValueError, match=r"^running_mean \(3,\) of a batch norm of 4 channels$"):
        load_program(wrong, FACTS)(IMAGES)


@pytest.mark.parametrize("name", TRUSTING)
def test_torchscript_names_none_of_them(name: str) -> None:
    assert name not in TENSORS
    data = files.with_text(files.scripted(files.Small()), "torch.relu(", f"torch.{name}(")
    with pytest.raises(Refused, match=rf"^x names torch\.{name}, which is no operator of a classifier"):
        load_torchscript(data, "x")

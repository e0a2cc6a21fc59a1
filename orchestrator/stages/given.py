"""Given target: F is a model that exists, staged weights with their head or a program; nothing is trained."""

from torch import nn

from orchestrator.config import Data, Target
from orchestrator.stages.io import Inputs, Outputs, tensors
from orchestrator.stages.target_model import given_program, given_target, theta, with_accuracy


def run(inputs: Inputs, data: Data, target: Target) -> Outputs:
    """Leave F as the stage `target` does, with its accuracy; raise `ValueError` if that is lower than
    `target.minimum_accuracy`."""
    network: nn.Module
    if target.program is not None:
        network, outputs = given_program(inputs)
    else:
        network, frozen = given_target(inputs, data, target)
        outputs = Outputs({"model.safetensors": tensors(network.state_dict())}, theta(frozen))
    outputs = with_accuracy(outputs, inputs, data, target, network)
    _check_accuracy(outputs, target)
    return outputs


def _check_accuracy(outputs: Outputs, target: Target) -> None:
    reached = outputs.metrics.get("target/accuracy")  # of rank 0
    if reached is not None and reached < target.minimum_accuracy:
        raise ValueError(
            f"{_named(target)} an accuracy of {reached:.3f} on the private test images, "
            f"below target.minimum_accuracy={target.minimum_accuracy}; check the order of the classes "
            f"(data.class_order), data.split and {_scaling(target)}, or lower it."
        )


def _named(target: Target) -> str:
    if target.program is not None:
        return f"target.program={target.program} reaches"
    return f"target.weights={target.weights} reach"


def _scaling(target: Target) -> str:
    return "the --scaling that it was staged with" if target.program is not None else "target.model.scaling"

"""Given target: F is a model that exists: staged weights with their head, a program or a service; nothing is
trained."""

from torch import nn

from orchestrator.config import Data, Target
from orchestrator.datasets.gathered import Images
from orchestrator.stages.io import Inputs, Outputs, tensors
from orchestrator.stages.target_model import (
    given_program,
    given_service,
    given_target,
    test_images,
    theta,
    with_accuracy,
)


def run(inputs: Inputs, data: Data, target: Target) -> Outputs:
    """Leave F as the stage `target` does, with its accuracy; raise `ValueError` if that is lower than
    `target.minimum_accuracy`."""
    network: nn.Module
    if target.program is not None:
        network, outputs = given_program(inputs)
    elif target.service is not None:
        network, outputs = given_service(inputs, target)
    else:
        network, frozen = given_target(inputs, data, target)
        outputs = Outputs({"model.safetensors": tensors(network.state_dict())}, theta(frozen))
    outputs = with_accuracy(outputs, inputs, data, target, network)
    _check_accuracy(outputs, target)
    return outputs


def asked(inputs: Inputs, data: Data, target: Target) -> list[Images]:
    """Return the images that F is asked for."""
    return [test_images(inputs, data, target).images]


def _check_accuracy(outputs: Outputs, target: Target) -> None:
    reached = outputs.metrics.get("target/accuracy")  # of rank 0
    if reached is not None and reached < target.minimum_accuracy:
        raise ValueError(
            f"{target.named} {'reach' if target.weights else 'reaches'} an accuracy of {reached:.3f} on the "
            f"private test images, below target.minimum_accuracy={target.minimum_accuracy}; check the order "
            f"of the classes (data.class_order), data.split and {_scaling(target)}, or lower it."
        )


def _scaling(target: Target) -> str:
    if target.service is not None:
        return "what the description says of images and labels"
    return "the --scaling that it was staged with" if target.program is not None else "target.model.scaling"

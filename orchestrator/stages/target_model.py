"""Target model F as stages share it: built from weights, budget and defense; loaded; measured."""

import logging
from collections.abc import Mapping
from typing import Any

from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from orchestrator.config import Data, Target
from orchestrator.config.base import Refused
from orchestrator.config.program import Program
from orchestrator.config.service import Service
from orchestrator.datasets import selection
from orchestrator.datasets.gathered import Images
from orchestrator.defenses import protected
from orchestrator.metrics.classification import is_among
from orchestrator.models.budgets import Frozen
from orchestrator.models.classifier import Classifier
from orchestrator.models.programs import ProgramNetwork, load_program
from orchestrator.models.public import whole
from orchestrator.models.services import ServiceNetwork
from orchestrator.stages.io import Inputs, Outputs, npy, per_image, tensors, trained
from orchestrator.stages.networks import new_classifier
from orchestrator.threat import as_scores
from orchestrator.training.loop import Fitted, predict

logger = logging.getLogger(__name__)

PROGRAM_FILE, FACTS_FILE = "program.bin", "program.json"
"""Files of a target that is a program: as it was staged, and what is declared of it."""

SERVICE_FILE = "service.json"
"""File of a target that is a service: what decides its answers."""


def untrained(inputs: Inputs, data: Data, target: Target) -> tuple[Classifier, Frozen]:
    """Return F before private training: its first or public weights, and what of it is frozen."""
    network = new_classifier(target.model, target.classes, data, target.seed)
    if target.pretrain:
        transfer(load_tensors(inputs.read("pretrain", "model.safetensors")), network)
    frozen = protected(network, target)
    millions = (frozen.trainable / 1e6, frozen.total / 1e6)
    logger.info("event=budget cut=%s theta_c_millions=%.6f theta_t_millions=%.6f", frozen.cut, *millions)
    return network, frozen


def given_target(inputs: Inputs, data: Data, target: Target) -> tuple[Classifier, Frozen]:
    """Return F as others trained it, on the device, and what of it `target.budget` says they froze.

    Raise `Refused` unless the weights are those of the network, head and all.
    """
    public = inputs.weights("target")
    assert public is not None  # the plan has them
    network: Classifier = new_classifier(target.model, target.classes, data, target.seed)
    frozen = protected(network, target)
    network.load_state_dict(network.state_dict() | whole(network, public, name=str(target.weights)))
    return network.to(inputs.world.device).eval(), frozen


def given_program(inputs: Inputs) -> tuple[ProgramNetwork, Outputs]:
    """Return F that is a program, on the device, and what the stage leaves of it: the file and its facts.

    Raise `Refused` if the file asks for anything but computing.
    """
    staged = inputs.program("target")
    assert staged is not None  # the plan has it
    data, facts = staged
    network = load_program(data, facts, device=inputs.world.device)
    return network, Outputs({PROGRAM_FILE: data, FACTS_FILE: facts.text.encode()}, {})


def given_service(inputs: Inputs, target: Target) -> tuple[ServiceNetwork, Outputs]:
    """Return F that is a service, and what the stage leaves of it."""
    assert inputs.service is not None  # the runner has one
    network = inputs.service(str(target.service))
    return network, Outputs({SERVICE_FILE: network.asker.service.text.encode()}, {})


def _stored_service(inputs: Inputs, target: Target) -> ServiceNetwork:
    """Return F that is a service, as it is to be asked now; raise `Refused` if it answers otherwise now."""
    network, _ = given_service(inputs, target)
    known = Service.model_validate_json(inputs.read("target", SERVICE_FILE))
    if network.asker.service.scored != known.scored:
        rule = "was staged again and answers otherwise than what was measured"
        raise Refused("target.service", target.service, rule, "start the sweep again")
    return network


def ask_ahead(network: nn.Module, images: Images) -> None:
    """Have a service's answers to all images stored, so that its budget is looked at once; other networks
    are there to be asked."""
    if isinstance(network, ServiceNetwork):
        network.ask_ahead(images)


def transfer(public: Mapping[str, Tensor], network: nn.Module) -> None:
    """Copy everything but the head, whose shape depends on k; raise `RuntimeError` at any other
    difference."""
    own = {name: tensor for name, tensor in network.state_dict().items() if name.startswith("head.")}
    body = {name: tensor for name, tensor in public.items() if not name.startswith("head.")}
    network.load_state_dict(body | own, strict=True)


def stored_target(inputs: Inputs, data: Data, target: Target) -> Any:
    """Return the trained F, a `Classifier`, `ProgramNetwork` or `ServiceNetwork`, on the device, in
    evaluation mode."""
    if target.service is not None:
        return _stored_service(inputs, target)
    if target.program is not None:
        facts = Program.model_validate_json(inputs.read("target", FACTS_FILE))
        return load_program(inputs.read("target", PROGRAM_FILE), facts, device=inputs.world.device)
    return with_weights(inputs.read("target", "model.safetensors"), inputs, data, target)


def answered(inputs: Inputs, data: Data, target: Target, images: Images) -> tuple[nn.Module, Tensor]:
    """Return the stored target, whose weights require no gradient, and its scores (N, k) of images."""
    teacher: nn.Module = stored_target(inputs, data, target).requires_grad_(False)
    return teacher, as_scores(teacher, predict(teacher, images, inputs.world.device))


def with_weights(state: bytes, inputs: Inputs, data: Data, target: Target) -> Classifier:
    """Return F with the weights of a file, on the device, in evaluation mode."""
    network: Classifier = new_classifier(target.model, target.classes, data, 0)
    protected(network, target)
    network.load_state_dict(load_tensors(state))
    return network.requires_grad_(True).to(inputs.world.device).eval()


def private_sets(
    inputs: Inputs, data: Data, target: Target
) -> tuple[selection.ImageSet, selection.ImageSet | None]:
    """Return F's training images, and those that its epoch is chosen on where these are its test images."""
    private = inputs.datasets(data.dataset)
    training = selection.target_images(private, data, target.classes, "train")
    if target.selection != "test":
        return training, None
    return training, selection.target_images(private, data, target.classes, "evaluation")


def trained_target(stage: str, network: nn.Module, fitted: Fitted, frozen: Frozen) -> Outputs:
    """Return F with its snapshots, and |theta_C| and |theta_T| in millions, as TL-DMI prints them."""
    outputs = trained(stage, network, fitted)
    for epoch, state in fitted.snapshots.items():
        outputs.files[snapshot_file(epoch)] = tensors(state)
    outputs.metrics.update(theta(frozen))
    return outputs


def theta(frozen: Frozen) -> dict[str, float]:
    """Return the metrics |theta_C| and |theta_T|, in millions of parameters."""
    return {
        "target/theta_c_millions": frozen.trainable / 1e6,
        "target/theta_t_millions": frozen.total / 1e6,
    }


def snapshot_file(epoch: int) -> str:
    """Return the name of the file that holds F after an epoch."""
    return f"snapshot-{epoch:05d}.safetensors"


def test_images(inputs: Inputs, data: Data, target: Target) -> selection.ImageSet:
    """Return F's test images (N, C, S, S) uint8, with labels (N,) in 0..k-1."""
    return selection.target_images(inputs.datasets(data.dataset), data, target.classes, "evaluation")


def with_accuracy(
    outputs: Outputs, inputs: Inputs, data: Data, target: Target, network: nn.Module
) -> Outputs:
    """Add F's accuracy on its test images, and for each of them whether it is right; on rank 0 only."""
    if inputs.world.rank != 0:
        return outputs
    test = test_images(inputs, data, target)
    ask_ahead(network, test.images)
    is_right = is_among(predict(network, test.images, inputs.world.device), test.labels)
    assert is_right is not None  # there are at least two classes
    table = npy(per_image(test.labels, {"accuracy": is_right}))
    files = outputs.files | {"accuracy_test.npy": table}
    metrics = outputs.metrics | {"target/accuracy": float(is_right.mean())}
    return Outputs(files, metrics, outputs.images_seen)

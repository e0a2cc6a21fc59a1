"""Joint training: a malicious developer trains F and G together (AMI, section IV-C)."""

from dataclasses import replace

from orchestrator.attacks.inverter import own_rates
from orchestrator.attacks.joint import Pair, objective
from orchestrator.config import Data, JointAttack, Release, Target
from orchestrator.stages.io import Inputs, Outputs, tensors
from orchestrator.stages.networks import new_inverter
from orchestrator.stages.target_model import private_sets, trained_target, untrained, with_accuracy
from orchestrator.threat import released_length
from orchestrator.training.loop import fit
from orchestrator.training.pairs import Pairs


def run(inputs: Inputs, data: Data, target: Target, attack: JointAttack, release: Release) -> Outputs:
    """Train F and G on F's private classes; leave both."""
    network, frozen = untrained(inputs, data, target)
    inverter = new_inverter(attack, data, target)
    pair = Pair(network, inverter, released_length(target.classes, release), release.renormalised)
    loss = objective(attack, num_pixels=data.channels * data.image_size**2)
    loss = replace(loss, keeps_last=target.selection == "last", own_rates=own_rates(attack))
    images, chosen_on = private_sets(inputs, data, target)
    pairs = Pairs(images.images, images.labels)
    held_out = Pairs(chosen_on.images, chosen_on.labels) if chosen_on else None
    recipe, snapshots = target.recipe, target.snapshots
    fitted = fit(pair, pairs, loss, recipe, target.seed, inputs.world, held_out, snapshots)
    outputs = trained_target("joint", network, fitted, frozen)
    outputs.files["inverter.safetensors"] = tensors(inverter.state_dict())
    return with_accuracy(outputs, inputs, data, target, network)

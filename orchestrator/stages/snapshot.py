"""Snapshot: the target model F as it was after an epoch of its training (TL-DMI, Figure 1)."""

from orchestrator.config import Data, Target
from orchestrator.stages.io import Inputs, Outputs
from orchestrator.stages.target_model import snapshot_file, with_accuracy, with_weights


def run(inputs: Inputs, data: Data, target: Target) -> Outputs:
    """Take the weights of one epoch and measure their accuracy."""
    assert target.snapshot is not None
    state = inputs.read("target", snapshot_file(target.snapshot))
    network = with_weights(state, inputs, data, target)
    return with_accuracy(Outputs({"model.safetensors": state}, {}), inputs, data, target, network)

"""Judgement: a further judge sees the stored reconstructions, so that it needs no attack to be run again.

Stored images have 8 bits, as those that judges were trained on; the trial's own judge sees them before they
are rounded.
"""

import numpy as np
import torch

from orchestrator.config import Data, Evaluation, Judge, Target
from orchestrator.datasets import selection
from orchestrator.metrics.agreement import agreement, kappa
from orchestrator.metrics.names import CLASS
from orchestrator.stages.images import evaluated, parts_of, stored_reconstructions
from orchestrator.stages.io import Inputs, Outputs
from orchestrator.stages.measuring import Values, accepted, as_failures, outputs_of
from orchestrator.stages.networks import stored_classifier
from orchestrator.training.loop import predict


def run(inputs: Inputs, data: Data, target: Target, judge: Judge, evaluation: Evaluation) -> Outputs:
    """Measure which reconstructions the judge accepts, and where it agrees with the trial's own judge."""
    private, device = inputs.datasets(data.dataset), inputs.world.device
    num_classes = private.description.num_classes
    network = stored_classifier(inputs, "judge", judge.model, num_classes, data, resizes=True)
    original = torch.tensor(selection.private_classes(private, data, target.classes))
    measured = []
    for part in parts_of(evaluation):
        (images, is_made), first = stored_reconstructions(inputs, part), evaluated(inputs, part)
        labels = torch.from_numpy(first["label"].astype(np.int64))
        prefix = "judge" if part == CLASS else "accuracy"
        judged = accepted(prefix, predict(network, images, device), original[labels])
        values = as_failures(judged, is_made, num_classes)
        own, theirs = values[f"{prefix}_top1"], torch.from_numpy(first[f"{prefix}_top1"].copy())
        values["agreement"] = agreement(own, theirs)
        beyond_chance = kappa(own, theirs)
        totals = {} if beyond_chance is None else {"kappa": beyond_chance}
        measured.append(Values(part, labels, values, totals))
    return outputs_of(measured)

"""From a spec to the Fisher analysis, and from its profiles to one number each: the first layers' share."""

import math
from collections.abc import Mapping
from functools import partial

from torch import nn

from orchestrator.analyses.fisher import DISTANCES, Distance, Profile, layer_thirds
from orchestrator.analyses.profiles import Measured
from orchestrator.config import Fisher
from orchestrator.metrics.perceptual import lpips
from orchestrator.models.classifier import Classifier


def distances(fisher: Fisher, networks: Mapping[str, nn.Module]) -> dict[str, Distance]:
    """Return the distances that a spec names; LPIPS by the public network of its kind (`vgg`, `alex`)."""
    found: dict[str, Distance] = {}
    for name in fisher.distances:
        kind = name.removeprefix("lpips-")
        found[name] = partial(lpips, networks[kind]) if kind != name else DISTANCES[name]
    return found


def early_shares(network: Classifier, profiles: Mapping[Measured, Profile]) -> dict[str, float]:
    """Return the share of the first layers in each profile, of the last iteration where there are several."""
    thirds = layer_thirds(network)
    shares = {
        f"fisher/early_share_{measured.distance or measured.task}": profile.early_share(thirds)
        for measured, profile in profiles.items()
    }
    return {name: share for name, share in shares.items() if not math.isnan(share)}

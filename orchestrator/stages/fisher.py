"""Fisher analysis: how much each of F's layers matters for classifying and for being inverted (TL-DMI,
Figure 4)."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from orchestrator import attacks
from orchestrator.analyses.fisher import (
    CHUNK,
    DISTANCES,
    SEARCHES,
    Distance,
    Profile,
    Search,
    classification_profile,
    inverter_profiles,
    layer_thirds,
    search_profiles,
)
from orchestrator.analyses.latent_updates import latent_search
from orchestrator.analyses.profiles import CLASSIFICATION, Measured, profile_csv, profile_png
from orchestrator.attacks.latent import GenerativePrior
from orchestrator.config import Attack, Data, Fisher, Prior, Release, Target
from orchestrator.metrics.perceptual import lpips
from orchestrator.models.classifier import Classifier
from orchestrator.stages.images import fitted_images
from orchestrator.stages.io import Inputs, Outputs
from orchestrator.stages.networks import stored_inverter, stored_prior
from orchestrator.stages.similarity import public_networks
from orchestrator.stages.target_model import stored_target


def run(
    inputs: Inputs,
    data: Data,
    target: Target,
    attack: Attack,
    release: Release,
    fisher: Fisher,
    prior: Prior | None = None,
) -> Outputs:
    """Profile F's layers for classification and for the attack, on images that F was fitted on."""
    fitted = fitted_images(inputs, data, target)
    images, labels = fitted.images[: fisher.images], fitted.labels[: fisher.images]
    network = stored_target(inputs, data, target)
    distances = _distances(fisher, public_networks(inputs))
    profiles = {CLASSIFICATION: classification_profile(network, images, labels)}
    if attack.profile == "updates":
        searched = stored_prior(inputs, data, target, prior) if prior else None
        search = _search(attack, labels, data, searched)
        made = search_profiles(
            network,
            search,
            images,
            iterations=fisher.iterations,
            distances=distances,
            chunk=1 if prior else CHUNK,
        )
        profiles |= {Measured("inversion", name, iteration): one for (name, iteration), one in made.items()}
    else:
        inverter = stored_inverter(inputs, data, target, attack)
        by_name = inverter_profiles(network, inverter, release, images, distances=distances)
        profiles |= {Measured("inversion", name): one for name, one in by_name.items()}
    files = {"fisher.csv": profile_csv(profiles), "fisher.png": profile_png(profiles)}
    return Outputs(files, _early_shares(network, profiles), len(images))


def _search(attack: Attack, labels: Tensor, data: Data, prior: GenerativePrior | None) -> Search:
    """Return the descent of an attack for labels (N,), among images or in a prior's latent space."""
    shape = (data.channels, data.image_size, data.image_size)
    if prior is None:
        return SEARCHES[attack.name](attack, labels, shape)
    device = next(prior.generator.parameters()).device

    def build(answers: Any) -> Any:
        return attacks.search(attack, answers, m=0, shape=shape, prior=prior)

    return latent_search(build, device, labels)


def _distances(fisher: Fisher, networks: Mapping[str, nn.Module]) -> dict[str, Distance]:
    """Return the distances that a spec names; LPIPS by the public network of its kind (`vgg`, `alex`)."""
    distances: dict[str, Distance] = {}
    for name in fisher.distances:
        kind = name.removeprefix("lpips-")
        distances[name] = partial(lpips, networks[kind]) if kind != name else DISTANCES[name]
    return distances


def _early_shares(network: Classifier, profiles: Mapping[Measured, Profile]) -> dict[str, float]:
    """Return the share of the first layers in each profile, of the last iteration where there are several."""
    thirds = layer_thirds(network)
    shares = {
        f"fisher/early_share_{measured.distance or measured.task}": profile.early_share(thirds)
        for measured, profile in profiles.items()
    }
    return {name: share for name, share in shares.items() if not math.isnan(share)}

"""Prior quality: how far generated images are from public ones that the prior was not trained on, by FID.

Only where `evaluation.networks.inception` is named; no other stage depends on it. It generates as many images
as there are held-out ones, of their classes where the prior is conditional: few images give large distances,
so that only priors on the same public images, of one loss, compare.
"""

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from orchestrator.config import Data, Prior, Target
from orchestrator.datasets.selection import prior_images
from orchestrator.metrics.features import frechet_distance
from orchestrator.stages.io import Inputs, Outputs
from orchestrator.stages.networks import CHOSEN, generated, is_conditional, stored_generator
from orchestrator.stages.similarity import public_features
from orchestrator.training.pairs import Rows, as_stored, hold_out
from orchestrator.training.seeds import derive_seed


def run(inputs: Inputs, data: Data, prior: Prior, target: Target | None = None) -> Outputs:
    """Compare generated images with held-out public ones; NaN is left out where there are fewer than two.

    `data`: the settings of the public images; `target`: the one that the prior learned from, if it did.
    """
    images = prior_images(inputs.datasets(data.dataset), data, prior)
    places, classes = _held_out(inputs, prior, len(images))
    if len(places) < 2:
        return Outputs({}, {})
    generator = stored_generator(inputs, data, prior, target.classes if target else 0)
    drawn = torch.Generator().manual_seed(derive_seed("quality", prior.seed))
    latents = torch.randn(len(places), generator.latent_size, generator=drawn)
    made: Rows = as_stored(generated(generator, prior, latents, classes, inputs.world.device))
    real, found = (public_features(inputs, "inception", part) for part in (images[places], made))
    return Outputs({}, {"prior_quality/generated_fid": frechet_distance(real, found)}, 2 * len(places))


def _held_out(inputs: Inputs, prior: Prior, num_images: int) -> tuple[Tensor, Tensor]:
    """Return the places of public images that were held out, and their classes, (n,) int64 each; of a
    conditional prior those that it was not trained on for another class either."""
    if not is_conditional(prior):
        held_out = hold_out(num_images, prior.recipe.validation_fraction, prior.seed)[1]
        return held_out, torch.zeros_like(held_out)
    stored = load_tensors(inputs.read("prior", CHOSEN))
    places, held_out = stored["places"], stored["held_out"]
    is_trained = torch.ones(len(places), dtype=torch.bool).index_fill_(0, held_out, False)
    unseen = held_out[~torch.isin(places[held_out], places[is_trained])]
    return places[unseen], stored["classes"][unseen]

"""Prior quality: how far generated images are from public ones that the prior was not trained on, by FID.

Only where `evaluation.networks.inception` is named; no other stage depends on it. It generates as many images
as there are held-out ones, of their classes where the prior is conditional: few images give large distances,
so that only priors on the same public images, of one loss, compare.
"""

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from orchestrator.attacks.conditional_prior import chosen
from orchestrator.config import Data, Prior, Target
from orchestrator.datasets.gathered import Images
from orchestrator.datasets.selection import prior_images
from orchestrator.metrics.features import frechet_distance
from orchestrator.stages.io import Inputs, Outputs
from orchestrator.stages.networks import CHOSEN, generated, is_conditional, stored_generator
from orchestrator.stages.similarity import public_features
from orchestrator.stages.target_model import answered
from orchestrator.training.pairs import Rows, as_stored, hold_out
from orchestrator.training.seeds import derive_seed


def run(inputs: Inputs, data: Data, prior: Prior, target: Target | None = None) -> Outputs:
    """Compare generated images with held-out public ones; NaN is left out where there are fewer than two.

    `data`: the settings of the public images; `target`: the one that the prior learned from, if it did.
    """
    images = prior_images(inputs.datasets(data.dataset), data, prior)
    places, classes = _held_out(inputs, data, prior, target, images)
    if len(places) < 2:
        return Outputs({}, {})
    generator = stored_generator(inputs, data, prior, target.classes if target else 0)
    drawn = torch.Generator().manual_seed(derive_seed("quality", prior.seed))
    latents = torch.randn(len(places), generator.latent_size, generator=drawn)
    made: Rows = as_stored(generated(generator, prior, latents, classes, inputs.world.device))
    real, found = (public_features(inputs, "inception", part) for part in (images[places], made))
    return Outputs({}, {"prior_quality/generated_fid": frechet_distance(real, found)}, 2 * len(places))


def _held_out(
    inputs: Inputs, data: Data, prior: Prior, target: Target | None, images: Images
) -> tuple[Tensor, Tensor]:
    """Return the places of public images that were held out, and their classes, (n,) int64 each; of a
    conditional prior those that it was not trained on for another class either."""
    if CHOSEN in inputs.files("prior"):
        stored = load_tensors(inputs.read("prior", CHOSEN))
        return _unseen(stored["places"], stored["classes"], stored["held_out"])
    places, classes = torch.arange(len(images)), torch.zeros(len(images), dtype=torch.int64)
    if target is not None and is_conditional(prior):  # a prior that was stored before it left the file
        places, classes = chosen(answered(inputs, data, target, images)[1], prior.images_per_class)
    return _unseen(places, classes, hold_out(len(places), prior.recipe.validation_fraction, prior.seed)[1])


def _unseen(places: Tensor, classes: Tensor, held_out: Tensor) -> tuple[Tensor, Tensor]:
    """Return places and classes of held-out pairs, (n,) int64, whose image is in no pair trained on."""
    is_trained = torch.ones(len(places), dtype=torch.bool).index_fill_(0, held_out, False)
    unseen = held_out[~torch.isin(places[held_out], places[is_trained])]
    return places[unseen], classes[unseen]

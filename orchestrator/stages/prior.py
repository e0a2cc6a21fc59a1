"""Prior: a generator of public images, trained once for all targets and attacks that search it (GMI, KEDMI).

Its key has no setting of the target or the private classes, unless these decide which classes are public.
"""

import torch
from torch import Tensor

from orchestrator.attacks.prior import objective
from orchestrator.config import Data, Prior
from orchestrator.datasets.selection import prior_images
from orchestrator.metrics.pictures import encode_png, sample_grid
from orchestrator.models.gan import Generator
from orchestrator.stages.io import Inputs, Outputs, tensors, trained
from orchestrator.stages.networks import new_adversaries
from orchestrator.training.loop import fit, predict
from orchestrator.training.pairs import Pairs, as_unit
from orchestrator.training.seeds import derive_seed

SAMPLES, SHOWN = 256, 64
"""Images that are generated to compare their spread, and those of them in the picture."""


def run(inputs: Inputs, data: Data, prior: Prior) -> Outputs:
    """Train the generator and its critic; leave both, a picture of samples and how much they spread."""
    images = prior_images(inputs.datasets(data.dataset), data, prior)
    network = new_adversaries(prior, data)
    pairs = Pairs(images, torch.zeros(len(images)))
    fitted = fit(network, pairs, objective(prior), prior.recipe, prior.seed, inputs.world)
    outputs = trained("prior", network, fitted)
    del outputs.files["model.safetensors"], outputs.metrics["prior/best_epoch"]  # it is the last
    samples = _samples(network.average, prior, inputs)
    outputs.files["generator.safetensors"] = tensors(network.average.state_dict())
    outputs.files["critic.safetensors"] = tensors(network.critic.state_dict())
    outputs.files["prior_samples.png"] = encode_png(sample_grid(samples[:SHOWN]))
    public = images[list(fitted.held_out)]
    outputs.metrics["prior/spread"] = spread(samples) / max(spread(public), 1 / 255)
    outputs.metrics["prior/images"] = float(len(images))
    return outputs


def spread(images: Tensor) -> float:
    """Return the root of the variance over images (N, C, S, S) uint8, in [0, 1], mean over pixels."""
    return as_unit(images).var(dim=0, correction=0).mean().sqrt().item()


def _samples(generator: Generator, prior: Prior, inputs: Inputs) -> Tensor:
    """Return generated images (`SAMPLES`, C, S, S) uint8."""
    drawn = torch.Generator().manual_seed(derive_seed("samples", prior.seed))
    latents = torch.randn(SAMPLES, generator.latent_size, generator=drawn)
    return predict(generator, latents, inputs.world.device).mul(255).round().to(torch.uint8)

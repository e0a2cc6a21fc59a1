"""Prior: a generator of public images, trained once for all targets and attacks that search it.

Its key has no setting of the target or the private classes, unless these decide which classes are public.
KEDMI's learns from the target's answers to the public images: it is trained for each target.
"""

import torch
from torch import Tensor

from orchestrator.attacks import inversion_prior
from orchestrator.attacks.prior import objective
from orchestrator.config import Data, Prior, Target
from orchestrator.datasets.gathered import Images, at
from orchestrator.datasets.selection import prior_images
from orchestrator.metrics.pictures import encode_png, sample_grid
from orchestrator.models.gan import Generator
from orchestrator.stages.io import Inputs, Outputs, tensors, trained
from orchestrator.stages.networks import new_adversaries
from orchestrator.stages.target_model import stored_target
from orchestrator.training.loop import Objective, fit, predict
from orchestrator.training.pairs import Pairs, as_unit, hold_out
from orchestrator.training.seeds import derive_seed

SAMPLES, SHOWN = 256, 64
"""Images that are generated to compare their spread, and those of them in the picture."""


def run(inputs: Inputs, data: Data, prior: Prior, target: Target | None = None) -> Outputs:
    """Train the generator and its critic; leave both, a picture of samples and how much they spread.

    `data`: the settings of the public images; `target`: the one that the prior learns from, if it does.
    """
    images = prior_images(inputs.datasets(data.dataset), data, prior)
    network = new_adversaries(prior, data, target.classes if target else 0)
    labels, goal = torch.zeros(len(images)), objective(prior)
    if target is not None:
        labels, goal = _answered(inputs, data, prior, target, images)
    fitted = fit(network, Pairs(images, labels), goal, prior.recipe, prior.seed, inputs.world)
    outputs = trained("prior", network, fitted)
    del outputs.files["model.safetensors"], outputs.metrics["prior/best_epoch"]  # it is the last
    samples = _samples(network.average, prior, inputs)
    outputs.files["generator.safetensors"] = tensors(network.average.state_dict())
    outputs.files["critic.safetensors"] = tensors(network.critic.state_dict())
    outputs.files["prior_samples.png"] = encode_png(sample_grid(samples[:SHOWN]))
    public = images[list(fitted.held_out)]
    outputs.metrics["prior/spread"] = spread(samples) / max(spread(public), 1 / 255)
    outputs.metrics["prior/images"] = float(len(images))
    if target is not None:
        asked_again = fitted.images_seen if prior.teacher_mode == "train" else 0
        outputs.metrics["prior/queries"] = float(len(images) + asked_again)
    return outputs


def _answered(
    inputs: Inputs, data: Data, prior: Prior, target: Target, images: Images
) -> tuple[Tensor, Objective]:
    """Return the target's scores of the images, float32 (N, k), and the objective that learns from them."""
    teacher = stored_target(inputs, data, target).requires_grad_(False)
    scores = predict(teacher, images, inputs.world.device).softmax(dim=1)
    trained_on, _ = hold_out(len(images), prior.recipe.validation_fraction, prior.seed)
    asked = teacher if prior.teacher_mode == "train" else None
    return scores, inversion_prior.objective(prior, at(images, trained_on), asked)


def spread(images: Tensor) -> float:
    """Return the root of the variance over images (N, C, S, S) uint8, in [0, 1], mean over pixels."""
    return as_unit(images).var(dim=0, correction=0).mean().sqrt().item()


def _samples(generator: Generator, prior: Prior, inputs: Inputs) -> Tensor:
    """Return generated images (`SAMPLES`, C, S, S) uint8."""
    drawn = torch.Generator().manual_seed(derive_seed("samples", prior.seed))
    latents = torch.randn(SAMPLES, generator.latent_size, generator=drawn)
    return predict(generator, latents, inputs.world.device).mul(255).round().to(torch.uint8)

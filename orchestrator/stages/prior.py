"""Prior: a generator of public images, trained once for all targets and attacks that search it.

Its key has no setting of the target or the private classes, unless these decide which classes are public.
KEDMI's learns the target's answers to the public images, PLG-MI's those images that it gives the highest
scores of each class: they are trained for each target.
"""

import torch
from torch import Tensor

from orchestrator.attacks import conditional_prior, inversion_prior
from orchestrator.attacks.prior import images_of_generator_steps, objective
from orchestrator.config import Data, Prior, Target
from orchestrator.datasets.gathered import Images, at
from orchestrator.datasets.selection import prior_images
from orchestrator.metrics.pictures import encode_png, sample_grid
from orchestrator.models.build import AnyGenerator
from orchestrator.stages.io import Inputs, Outputs, tensors, trained
from orchestrator.stages.networks import CHOSEN, generated, new_adversaries
from orchestrator.stages.target_model import answered
from orchestrator.training.loop import Objective, fit
from orchestrator.training.pairs import Pairs, as_stored, as_unit, hold_out
from orchestrator.training.seeds import derive_seed

SAMPLES, SHOWN, ROW = 256, 64, 8
"""Images that are generated to compare their spread, those of them in the picture, and in a row of it."""


def run(inputs: Inputs, data: Data, prior: Prior, target: Target | None = None) -> Outputs:
    """Train the generator and its critic; leave both, a picture of samples and how much they spread.

    `data`: the settings of the public images; `target`: the one that the prior learns from, if it does.
    """
    images = prior_images(inputs.datasets(data.dataset), data, prior)
    network = new_adversaries(prior, data, target.classes if target else 0)
    chosen: dict[str, Tensor] = {}
    if target is None:
        pairs, goal = Pairs(images, torch.zeros(len(images))), objective(prior)
    else:
        pairs, goal, chosen = _taught(inputs, data, prior, target, images)
    fitted = fit(network, pairs, goal, prior.recipe, prior.seed, inputs.world)
    outputs = trained("prior", network, fitted)
    del outputs.files["model.safetensors"], outputs.metrics["prior/best_epoch"]  # it is the last
    samples = _samples(network.average, prior, target, inputs)
    outputs.files["generator.safetensors"] = tensors(network.average.state_dict())
    outputs.files["critic.safetensors"] = tensors(network.critic.state_dict())
    outputs.files["prior_samples.png"] = encode_png(sample_grid(samples[:SHOWN]))
    if chosen:
        outputs.files[CHOSEN] = tensors({**chosen, "held_out": torch.tensor(fitted.held_out)})
    public = pairs.inputs[list(fitted.held_out)]
    outputs.metrics["prior/spread"] = spread(samples) / max(spread(public), 1 / 255)
    outputs.metrics["prior/images"] = float(len(images))
    if target is not None:
        queries = len(images) + _asked_again(prior, fitted.images_seen, inputs.world.size)
        outputs.metrics["prior/queries"] = float(queries)
    return outputs


def _taught(
    inputs: Inputs, data: Data, prior: Prior, target: Target, images: Images
) -> tuple[Pairs, Objective, dict[str, Tensor]]:
    """Return what is learned by the target's scores of the images, and the objective that learns it: all
    images and their scores, float32 (N, k), or the chosen ones of each class and their classes, which are
    returned with their places among the images too."""
    teacher, scores = answered(inputs, data, target, images)
    if prior.loss == "plg":
        positions, classes = conditional_prior.chosen(scores, prior.images_per_class)
        goal = conditional_prior.objective(prior, teacher, target.classes)
        return Pairs(at(images, positions), classes), goal, {"places": positions, "classes": classes}
    trained_on, _ = hold_out(len(images), prior.recipe.validation_fraction, prior.seed)
    asked = teacher if prior.teacher_mode == "train" else None
    return Pairs(images, scores), inversion_prior.objective(prior, at(images, trained_on), asked), {}


def _asked_again(prior: Prior, images_seen: int, workers: int) -> int:
    """Return how many images the target is asked for in training, which sees images over all epochs."""
    if prior.loss == "plg":
        return images_of_generator_steps(prior, images_seen // prior.epochs, workers)
    return images_seen if prior.teacher_mode == "train" else 0


def spread(images: Tensor) -> float:
    """Return the root of the variance over images (N, C, S, S) uint8, in [0, 1], mean over pixels."""
    return as_unit(images).var(dim=0, correction=0).mean().sqrt().item()


def _samples(generator: AnyGenerator, prior: Prior, target: Target | None, inputs: Inputs) -> Tensor:
    """Return generated images (`SAMPLES`, C, S, S) uint8; of a conditional prior a row of each class."""
    drawn = torch.Generator().manual_seed(derive_seed("samples", prior.seed))
    latents = torch.randn(SAMPLES, generator.latent_size, generator=drawn)
    classes = torch.arange(SAMPLES) // ROW % (target.classes if target else 1)
    return as_stored(generated(generator, prior, latents, classes, inputs.world.device))

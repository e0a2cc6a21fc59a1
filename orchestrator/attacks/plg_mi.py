"""PLG-MI: descent on random views of a conditional prior's images (Yuan et al., AAAI 2023; released code).

min over z of the sum over two random views of L_inv(T(view of G(z, y)), y), the largest other logit minus
that of the class y. Authors' values: z from N(0, I) of 128 numbers, Adam 0.1, 600 steps; no critic, no clip,
G in evaluation mode; views as in `crops`, all with changed colours; five restarts, all of which count.

Differences: views are drawn for each image and step by the attack's seed and the class, so that rows are
independent, where released code draws from one generator for a batch of 60; `restarts` keeps one of several
starts, and `evaluation.candidates` asks for several images.
"""

from torch import Tensor

from orchestrator import config
from orchestrator.attacks.conditional_prior import max_margin
from orchestrator.attacks.crops import VIEW_NUMBERS, random_views
from orchestrator.attacks.latent import (
    Adam,
    GenerativePrior,
    LatentSearch,
    Method,
    class_logits,
    normal_rows,
    of_logits,
    uniform_rows,
)
from orchestrator.threat import WhiteBox

BETAS = (0.9, 0.999)


def search(attack: config.PlgMiAttack, target: WhiteBox, prior: GenerativePrior) -> LatentSearch:
    """Return the search of an image (C, S, S) for the top class of each row of scores (n, k)."""
    size, number_of_views = prior.generator.latent_size, attack.augmentations

    def views(images: Tensor, classes: Tensor, number: int) -> Tensor:
        shape = (number_of_views * attack.restarts, VIEW_NUMBERS)
        drawn = uniform_rows(classes, shape, "plg-mi view", attack.seed, number)
        repeated = images.repeat(1, number_of_views, 1, 1, 1)
        return random_views(repeated.flatten(0, 1), drawn.flatten(0, 1), jitter=1.0).view_as(repeated)

    method = Method(
        steps=attack.steps,
        start=lambda classes: normal_rows(classes, (attack.restarts, size), "plg-mi", attack.seed),
        make=lambda generator, latents, classes: generator(latents, classes),
        identity=of_logits(target, max_margin),
        plausibility=lambda images: images.new_zeros(len(images)),
        optimizer=Adam(attack.learning_rate, BETAS),
        project=lambda variable: variable,
        choice=class_logits,
        starts=attack.restarts,
        views=views,
    )
    return LatentSearch(method, target, prior)

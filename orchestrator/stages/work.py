"""Work of a stage: the multiply-adds that its sub-specs ask for, and the images that it will see. No torch.

A function has the name of the stage's row in the graph, or of its module. Images are counted as the stage
itself counts `images_seen` in its cost, so that what a stored stage took is divided by the work that it did.
"""

import functools
from collections.abc import Callable
from typing import Any

from orchestrator.config import Data, Model
from orchestrator.config.base import Recipe, num_held_out
from orchestrator.models import operations
from orchestrator.models.generator_outlines import Shapes
from orchestrator.models.operations import Operations, Unknown
from orchestrator.stages.workload import Sizes, Work, no_work

JUDGE_CLASSES = 100
"""Of an evaluation model, whose head is a small part of its work: the same here for every data set."""

PUBLIC = {"inception": 5.7e9, "facenet": 1.4e9, "vgg": 1.3e9, "alex": 0.06e9}
"""Multiply-adds of an image in the networks that measure pictures, at the sides that they take (vgg and alex
at 64x64)."""

DESCRIPTOR = 6e9
"""Multiply-adds of a photograph in a face recogniser."""

UNSEEN = 0.3
"""Spread of comparisons of images, which are counted in pixels and numbers, not in operations of networks."""

LOOKED_UP, GUESSED = 50.0, 500.0
"""Multiply-adds of a pixel of an image that a look-up is made of, and of one that is guessed."""

FEATURES, STARTS = 1024, 256
"""Features of an evaluation model, and images that a search starts from, about."""


STEP = 140e6
"""Multiply-adds that take a CPU as long as the part of a training's step that no batch makes shorter, about
6.5 ms where 20 million take one (docs/results.md): most of a step of a narrow network, little of a wide
one's."""


def nothing(specs: Any, shapes: Shapes | None) -> Work:
    """No formula: every stage takes the same."""
    return Work("nothing", 1.0, lambda sizes: 0)


def pretrain(specs: Any, shapes: Shapes | None) -> Work:
    """Training on public classes, or a check of public weights."""
    network = _classifier(specs.model, specs.data, JUDGE_CLASSES)
    how = specs.pretrain
    if how.weights:
        return _passes(network, lambda sizes: sizes.whole(how.dataset) if how.dataset else 0, "given")
    return _training(
        network,
        how.recipe,
        lambda sizes: sizes.whole(how.dataset) if how.dataset else sizes.public(specs.data),
    )


def target(specs: Any, shapes: Shapes | None) -> Work:
    """F's training; what frozen layers make of an image is computed once where it stays the same."""
    f = specs.target
    network = _target(specs)
    fixed = f.freeze == "weights+statistics" and f.recipe.augmentation == "none" and f.budget != "full"
    defense = "+".join(name for name, value in f.defense.plain.items() if value)
    return _training(
        network,
        f.recipe,
        lambda sizes: sizes.private(specs.data, f.classes, "train"),
        holds_out=f.selection != "test",
        note="+".join(filter(None, (defense, "reused" if fixed else ""))),
        each=network.backward * 1.5 if fixed else network.trained,
    )


def given(specs: Any, shapes: Shapes | None) -> Work:
    """F's accuracy on its test images, by a stage that counts none."""
    tested = functools.partial(_tested, specs)
    return _passes(_target(specs), lambda sizes: 0, beside=tested)


snapshot = given


def joint(specs: Any, shapes: Shapes | None) -> Work:
    """F and G together."""
    f, g = _target(specs), _inverter(specs)
    count = functools.partial(_private, specs)
    return _training(
        f,
        specs.target.recipe,
        count,
        holds_out=specs.target.selection != "test",
        beside=g,
        each=f.trained + g.trained,
    )


def judge(specs: Any, shapes: Shapes | None) -> Work:
    """The evaluation model's training, or a check of a given one."""
    network = _judge(specs)
    if not specs.judge.trained:
        return _passes(network, lambda sizes: 0, "given", beside=functools.partial(_judged, specs))
    return _training(network, specs.judge.recipe, lambda sizes: sizes.every(specs.data, specs.judge.images))


def private_scores(specs: Any, shapes: Shapes | None) -> Work:
    """F's answers to private images."""
    return _asked(specs, lambda sizes: _attacked(specs, sizes))


def predictions(specs: Any, shapes: Shapes | None) -> Work:
    """F's answers to the adversary's images."""
    return _asked(specs, functools.partial(_auxiliary, specs))


def answers(specs: Any, shapes: Shapes | None) -> Work:
    """F's answers to public images."""
    return _asked(specs, lambda sizes: _public(specs.data, sizes))


def shield(specs: Any, shapes: Shapes | None) -> Work:
    """F's answers to its test images; stored answers are moved beside."""
    return _asked(specs, functools.partial(_tested, specs))


def prior(specs: Any, shapes: Shapes | None) -> Work:
    """A generator's training against a critic: on every batch a step of the critic, on some one of the
    generator; where it learns from F, F's answers to all public images beside."""
    how, data = specs.prior, specs.data
    made, critic = _generator(specs), _critic(specs)
    penalty = 3 * critic.trained if how.loss == "wgan-gp" else 0.0
    parts = 3 if how.loss == "kedmi" else 2  # of a critic's batch: images with scores, others, generated ones
    each = made.forward + parts * critic.trained + penalty
    each += (made.trained + critic.trained + (parts - 2) * critic.forward) / how.critic_steps
    networks = [made, critic]
    answered = 0.0
    if how.needs_target:
        f = _target(specs)
        networks.append(f)
        answered = f.forward
        teaches = how.loss == "kedmi" and how.teacher_mode == "train"
        each += f.searched / how.critic_steps if how.loss == "plg" else f.forward * teaches
    classes = specs.target.classes if how.needs_target else 0
    return Work(
        _family(*networks, note=f"{how.loss} {how.teacher_mode}" if how.loss == "kedmi" else how.loss),
        each,
        lambda sizes: _seen(how.recipe, how.num_trained_on(_public(data, sizes), classes)),
        once=lambda sizes: answered * _public(data, sizes),
        parameters=sum(one.parameters for one in networks) + made.parameters,
        trained=made.parameters + critic.parameters,
        activations=how.batch_size * (made.activations + parts * critic.activations),
        unknown=_unknown(*networks),
    )


def prior_quality(specs: Any, shapes: Shapes | None) -> Work:
    """Generated and held-out images in Inception."""
    made = _generator(specs)

    def images(sizes: Sizes) -> float:
        how = specs.prior
        classes = specs.target.classes if how.needs_target else 0
        count = how.num_trained_on(_public(specs.data, sizes), classes)
        return 2.0 * num_held_out(count, how.recipe.validation_fraction)

    return Work(
        _family(made, note="inception"),
        PUBLIC["inception"] + made.forward / 2,
        images,
        parameters=27e6,
        unknown=_unknown(made),
    )


def student(specs: Any, shapes: Shapes | None) -> Work:
    """A copy of F."""
    network = _classifier(specs.student.model, specs.data, JUDGE_CLASSES)
    return _training(network, specs.student.recipe, lambda sizes: _public(specs.data, sizes))


def surrogate(specs: Any, shapes: Shapes | None) -> Work:
    """The adversary's own classifier."""
    network = _classifier(specs.surrogate.model, specs.data, specs.target.classes)
    return _training(network, specs.surrogate.recipe, functools.partial(_auxiliary, specs))


def inversion(specs: Any, shapes: Shapes | None) -> Work:
    """G's training, with rivals where a loss has some."""
    attack, g = specs.attack, _inverter(specs)
    losses = "+".join(name for name in ("adversarial", "features") if getattr(attack.losses, name))
    each, beside = g.trained, None
    if attack.losses.features and attack.losses.surrogate:
        network = _classifier(attack.losses.surrogate.model, specs.data, specs.target.classes)
        each += network.forward + network.searched
    if (
        attack.has_discriminator
    ):  # it sees real and made images, and passes back to G what it has of made ones
        sizes = {"channels": specs.data.channels, "image_size": specs.data.image_size}
        beside = operations.discriminator(attack.model.width, **sizes)
        each += 2 * beside.trained
        if attack.losses.adversarial_form == "non-saturating":
            each += beside.searched
    return _training(
        g,
        attack.recipe,
        functools.partial(_auxiliary, specs),
        holds_out=not attack.selects_on_target,
        note=losses,
        beside=beside,
        each=each,
    )


def search(specs: Any, shapes: Shapes | None) -> Work:
    """Images that are searched for rows of scores, or for classes and candidates."""
    attack, f = specs.attack, _target(specs)
    networks = [f]
    if getattr(specs, "prior", None):
        networks.append(_generator(specs, shapes))
        if attack.needs_critic or specs.prior.loss == "kedmi":
            networks.append(_critic(specs))
    networks += [_classifier(one, specs.data, specs.target.classes) for one in attack.classifiers.values()]
    there_and_back, forward = attack.passes
    pass_of = sum(one.forward for one in networks[:2])
    each = there_and_back * sum(one.searched for one in networks) + forward * pass_of
    asked_once = attack.shared_queries * (1 if attack.draws_candidates else specs.evaluation.candidates)
    if attack.draws_candidates:
        each /= specs.evaluation.candidates
    return Work(
        _family(*networks, note=attack.name),
        max(each, pass_of),
        lambda sizes: _attacked(specs, sizes),
        once=lambda sizes: asked_once * pass_of,
        parameters=sum(one.parameters for one in networks),
        activations=SEARCHED * sum(one.activations for one in networks),
        on_accelerator=SEARCHED_THERE * sum(one.activations for one in networks),
        spread=STOPS if attack.stops_early else 0.0,
        unknown=_unknown(*networks),
    )


def reconstructions(specs: Any, shapes: Shapes | None) -> Work:
    """G's images."""
    return _passes(_inverter(specs), lambda sizes: _attacked(specs, sizes))


def fisher(specs: Any, shapes: Shapes | None) -> Work:
    """Gradients of single images by every layer."""
    f, how = _target(specs), specs.fisher
    steps = max(how.iterations) if specs.attack.profile == "updates" else len(how.distances)
    each = f.trained * (1 + 2 * steps)

    def images(sizes: Sizes) -> float:
        return min(how.images, sizes.private(specs.data, specs.target.classes, "train"))

    family, unknown = _family(f, note=specs.attack.name), _unknown(f)
    return Work(family, each, images, parameters=2 * f.parameters, unknown=unknown)


def yardsticks(specs: Any, shapes: Shapes | None) -> Work:
    """Guesses made of all images that the adversary has; those of classes are judged, and compared with the
    mean training images."""
    pixels = _pixels(specs.data)
    judged = _judge(specs) if hasattr(specs, "judge") else None
    has_images = getattr(specs, "release", None) is not None
    is_adversary = getattr(specs, "auxiliary", None) is not None

    def once(sizes: Sizes) -> float:
        known = _private(specs, sizes) if judged or (has_images and not is_adversary) else 0.0
        return LOOKED_UP * pixels * (known + (_auxiliary(specs, sizes) if is_adversary else 0.0))

    return Work(
        f"{judged.family} look-ups" if judged else "look-ups",
        GUESSED * pixels + (2 * judged.forward if judged else 0.0),
        functools.partial(_attacked, specs),
        once=once,
        spread=UNSEEN,
    )


def retrieval(specs: Any, shapes: Shapes | None) -> Work:
    """Images ranked among private ones by pixels and by the evaluation model's features, which it has of the
    training images; all test images and starts pass through it beside, those of a prior made for it."""
    judged, classes = _judge(specs), specs.target.classes
    made = _generator(specs, shapes).forward if getattr(specs, "prior", None) else 0.0
    asks_images = specs.evaluation.task != "class-inference"
    is_conditional = made > 0 and specs.prior.loss == "plg"  # an image of each class is made then

    def once(sizes: Sizes) -> float:
        tested, trained = _tested(specs, sizes), _private(specs, sizes)
        of_class = (tested + trained) / classes if asks_images else 0.0
        ranked = _attacked(specs, sizes) * (of_class * _pixels(specs.data) + trained * FEATURES)
        starts = max(STARTS, _attacked(specs, sizes)) if is_conditional else STARTS
        return judged.forward * (tested + starts) + made * starts + ranked

    return Work(
        f"{judged.family} ranks",
        judged.forward,
        functools.partial(_attacked, specs),
        once=once,
        spread=UNSEEN,
        parameters=judged.parameters,
    )


def evaluation(specs: Any, shapes: Shapes | None) -> Work:
    """Images measured, answered by F and judged, and seen by public networks."""
    f, judged = _target(specs), _judge(specs)
    asked = specs.evaluation.networks.model_dump(exclude_none=True)
    each = f.forward + judged.forward + sum(PUBLIC[name] for name in asked)
    note = "+".join(("measured", *asked))
    beside = _inverter(specs).forward if specs.attack.inverter else 0.0
    return Work(
        _family(f, judged, note=note),
        each + beside,
        lambda sizes: _attacked(specs, sizes),
        parameters=f.parameters + judged.parameters + 30e6 * len(asked),
        unknown=_unknown(f, judged),
    )


def judgement(specs: Any, shapes: Shapes | None) -> Work:
    """Stored images before a further judge."""
    return _passes(_judge(specs), lambda sizes: _attacked(specs, sizes))


def descriptors(specs: Any, shapes: Shapes | None) -> Work:
    """Photographs of every class in a recogniser."""

    def images(sizes: Sizes) -> float:
        return sum(sizes.every(specs.data, part) for part in ("train", "evaluation"))

    return Work("recogniser", DESCRIPTOR, images, parameters=60e6)


def recognition(specs: Any, shapes: Shapes | None) -> Work:
    """Stored images in a recogniser."""
    return Work("recogniser", DESCRIPTOR, lambda sizes: _attacked(specs, sizes), parameters=60e6)


SEARCHED, SEARCHED_THERE = 64, 256
"""Images that a search has in memory at a time on a CPU, and on an accelerator."""

STOPS = 0.6
"""Spread of searches whose answers say how many they need: `passes` are those at most."""


def _training(
    network: Operations,
    recipe: Recipe,
    count: Callable[[Sizes], float],
    *,
    holds_out: bool = True,
    note: str = "",
    beside: Operations | None = None,
    each: float | None = None,
) -> Work:
    """Return the work of a fit: steps on what is not held out, and a pass of the rest in each epoch."""
    fraction = recipe.validation_fraction if holds_out else 0.0
    networks = [network, *filter(None, [beside])]
    weights = sum(one.parameters for one in networks)
    return Work(
        _family(*networks, note=note),
        (network.trained if each is None else each)
        + network.forward * fraction / (1.0 - fraction)
        + STEP / recipe.batch_size,
        lambda sizes: _seen(recipe, count(sizes), holds_out=holds_out),
        parameters=weights,
        trained=weights,
        activations=recipe.batch_size * sum(one.activations for one in networks),
    )


def _seen(recipe: Recipe, count: float, *, holds_out: bool = True) -> float:
    """Return how many images a training sees over its epochs."""
    held_out = num_held_out(int(count), recipe.validation_fraction) if holds_out else 0
    return recipe.epochs * max(0.0, count - held_out)


def _passes(
    network: Operations,
    images: Callable[[Sizes], float],
    note: str = "",
    beside: Callable[[Sizes], float] = no_work,
) -> Work:
    """Return the work of passes through one network without gradients, of images that its stage counts and of
    others beside."""
    return Work(
        _family(network, note=note),
        network.forward,
        images,
        once=lambda sizes: network.forward * beside(sizes),
        parameters=network.parameters,
        unknown=_unknown(network),
    )


def _asked(specs: Any, images: Callable[[Sizes], float]) -> Work:
    """Return the work of answers by F."""
    return _passes(_target(specs), images)


def _unknown(*networks: Operations) -> Unknown:
    """Return what is not known of some network."""
    known: tuple[Unknown, ...] = ("", "size", "time")
    return max((one.unknown for one in networks), key=known.index)


def _family(*networks: Operations, note: str = "") -> str:
    return " ".join(filter(None, [*(one.family for one in networks), note]))


def _classifier(model: Model, data: Data, classes: int, budget: str = "full") -> Operations:
    sizes = {"classes": classes, "channels": data.channels, "image_size": data.image_size}
    return operations.classifier(model, **sizes, budget=budget)


def _target(specs: Any) -> Operations:
    f = specs.target
    if f.foreign:
        unknown: Unknown = "time" if f.service is not None else "size"
        return operations.placeholder(f"{f.foreign} {getattr(f, f.foreign)}", unknown)
    return _classifier(f.model, specs.data, f.classes, str(f.budget))


def _judge(specs: Any) -> Operations:
    sizes = {"channels": specs.data.channels, "image_size": specs.data.image_size}
    return operations.classifier(specs.judge.model, classes=JUDGE_CLASSES, **sizes, resizes=True)


def _inverter(specs: Any) -> Operations:
    sizes = {"channels": specs.data.channels, "image_size": specs.data.image_size}
    return operations.inverter(specs.attack.inverter, classes=specs.target.classes, **sizes)


def _generator(specs: Any, shapes: Shapes | None = None) -> Operations:
    """Return a prior's generator; one that others trained is known where its weights are staged."""
    how, data = specs.prior, specs.data
    if not how.weights:
        return operations.generator(how.model, channels=data.channels, image_size=data.image_size)
    if shapes is None:
        return operations.placeholder(f"weights {how.weights}")
    return operations.brought_generator(shapes, how.weights)


def _critic(specs: Any) -> Operations:
    how, data = specs.prior, specs.data
    classes = specs.target.classes if how.needs_target else 0
    sizes = {"channels": data.channels, "image_size": data.image_size}
    return operations.critic(how.loss, how.model.width, classes=classes, **sizes)


def _private(specs: Any, sizes: Sizes) -> float:
    return sizes.private(specs.data, specs.target.classes, "train")


def _tested(specs: Any, sizes: Sizes) -> float:
    return sizes.private(specs.data, specs.target.classes, "evaluation")


def _judged(specs: Any, sizes: Sizes) -> float:
    """Return the images of every class that an evaluation model is tested on, and whose features it keeps."""
    return sum(sizes.every(specs.data, part) for part in ("evaluation", "train"))


def _pixels(data: Data) -> float:
    return float(data.channels * data.image_size**2)


def _auxiliary(specs: Any, sizes: Sizes) -> float:
    return sizes.auxiliary(specs.data, specs.target, specs.auxiliary)


def _public(data: Data, sizes: Sizes) -> float:
    """Return the images that a prior is trained on: a whole set, whose settings have no pool of private
    classes, or the public classes of the private set."""
    return sizes.whole(data.dataset) if data.class_pool is None else sizes.public(data)


def _attacked(specs: Any, sizes: Sizes) -> float:
    """Return how many images are attacked: private ones of both parts, or those of classes."""
    asked, classes = specs.evaluation, specs.target.classes
    if asked.task == "class-inference":
        return (len(asked.classes) if asked.classes else classes) * asked.candidates
    counts = (sizes.private(specs.data, classes, part) for part in ("train", "evaluation"))
    return sum(min(asked.images, count) for count in counts)

"""Fits that a trial will make: whether images and batches are enough after some are held out. No torch."""

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.config import TrialSpec
from orchestrator.config.base import Recipe, Refused, num_held_out
from orchestrator.config.students import FIELD as STUDENTS


@dataclass(frozen=True)
class Fit:
    """A network's training: the stage that does it, its recipe and where its images come from."""

    stage: str
    field: str  # of the recipe
    recipe: Recipe
    source: str  # the field that decides how many images there are
    value: object  # of that field
    images: str  # private, public, auxiliary, or a part of every class: `every train`
    holds_out: bool = True


def fits(spec: TrialSpec) -> Iterator[Fit]:
    """Yield the trainings of a trial."""
    f, pretrain, split = spec.target, spec.target.pretrain, ("data.split", spec.data.split)
    stage = "joint" if spec.attack.trains_target else "target"
    if f.given is None:
        yield Fit(stage, "target.recipe", f.recipe, *split, "private", f.selection != "test")
    for field, judge in spec.every_judge.items():
        if judge.trained:
            yield Fit("judge", f"{field}.recipe", judge.recipe, *split, f"every {judge.images}")
    if pretrain and pretrain.weights is None:
        named = pretrain.dataset or "null"
        yield Fit(
            "pretrain", "target.pretrain.recipe", pretrain.recipe, "target.pretrain.dataset", named, "public"
        )
    if (prior := spec.prior) and not prior.weights:
        given: tuple[str, object] = ("prior.dataset", prior.dataset or "null")
        if prior.loss == "plg":
            given = ("prior.images_per_class", prior.images_per_class)
        yield Fit("prior", "prior", prior.recipe, *given, "public")
        of_public = ("prior.dataset", prior.dataset or "null", "public")
        for name, student in spec.attack.students.items():
            yield Fit("student", f"{STUDENTS}.{name}.recipe", student.recipe, *of_public)
    size = spec.auxiliary.size
    source = ("auxiliary.size", "null" if size is None else size)
    for name, (field, recipe) in spec.attack.recipes.items():
        holds_out = not (name == "inversion" and spec.attack.selects_on_target)
        yield Fit(name, field, recipe, *source, "auxiliary", holds_out)


def check_fit(fit: Fit, num_images: int, workers: int) -> None:
    """Raise `Refused` unless each worker gets two images of the first batch, as batch norms need."""
    needed, recipe = 2 * workers, fit.recipe
    each = f"two for each of {workers} workers" if workers > 1 else "a batch of two"
    if recipe.batch_size < needed:
        rule = f"must be at least {needed}, {each}"
        raise Refused(f"{fit.field}.batch_size", recipe.batch_size, rule, f"set it to {needed} or more")
    held_out = num_held_out(num_images, recipe.validation_fraction) if fit.holds_out else 0
    if num_images - held_out >= needed:
        return
    left = f"leaves {max(0, num_images - held_out)} of {num_images} images to train on by {fit.field}"
    rule = f"{left}, and {needed} are needed, {each}"
    if fit.holds_out and num_images > needed:
        raise Refused(f"{fit.field}.validation_fraction", recipe.validation_fraction, rule, "lower it")
    raise Refused(fit.source, fit.value, rule, "give more images")

"""Settings that no trial of a study reads are refused; one that some trials read is not."""

from typing import Any

import pytest

from orchestrator.config.normalise import normalise
from orchestrator.sweep.points import expand
from orchestrator.sweep.unused import RECIPES, unused
from tests import tiny

SEARCH = {"name": "optimization"}
GMI = {"name": "gmi"}
GMI_ALONE = {"name": "gmi", "prior_weight": 0}
PRIOR: dict[str, Any] = {"prior": {}, "evaluation.task": "class-inference"}
KEDMI = {**PRIOR, "prior.loss": "kedmi"}
PLG = {**PRIOR, "prior": {"loss": "plg"}}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "auxiliary.dataset=cifar10": (
        {"auxiliary": {"dataset": "cifar10"}},
        {"auxiliary": {"kind": "generic", "dataset": "cifar10"}},
    ),
    "auxiliary.overlap=remove": (
        {"auxiliary": {"kind": "generic", "overlap": "remove"}},
        {"auxiliary": {"kind": "generic", "dataset": "x", "overlap": "remove"}},
    ),
    "attack.candidates=released": (
        {**PRIOR, "attack": {"name": "ppa", "candidates": "released"}},
        {**PRIOR, "attack": {"name": "ppa", "candidates": "released"}, "evaluation.candidates": 2},
    ),
    "release.truncation=2": (
        {"release": {"truncation": 2, "labels_only": True}},
        {"release": {"truncation": 2}},
    ),
    "release.decimals=2": ({"release": {"decimals": 2, "labels_only": True}}, {"release": {"decimals": 2}}),
    "target.minimum_accuracy=0.5": (
        {"target": {"classes": 3, "model": tiny.DIGIT, "minimum_accuracy": 0.5}},
        {"target": {"classes": 3, "model": tiny.DIGIT, "minimum_accuracy": 0.5, "weights": "x"}},
    ),
    "target.pretrain.seed=3": (
        {"target.pretrain": {"weights": "x", "seed": 3}},
        {"target.pretrain": {"seed": 3}},
    ),
    "target.pretrain.recipe": (
        {"target.pretrain": {"weights": "x", "recipe": tiny.RECIPE}},
        {"target.pretrain": {"recipe": tiny.RECIPE}},
    ),
    "prior": ({"prior": {}}, {**PRIOR, "attack": GMI}),
    "prior.teacher_mode=train": (
        {**PRIOR, "attack": GMI, "prior.teacher_mode": "train"},
        {**PRIOR, "attack": {"name": "kedmi"}, "prior.teacher_mode": "train", "prior.loss": "kedmi"},
    ),
    "prior.penalty=1.0": (
        {**PRIOR, "attack": GMI, "prior.penalty": 1},
        {**PRIOR, "attack": GMI, "prior.penalty": 1, "prior.loss": "wgan-gp"},
    ),
    "target.defense.bido.epsilon=0.1": (
        {"target.defense": {"bido": {"kind": "coco", "epsilon": 0.1}}},
        {"target.defense": {"bido": {"epsilon": 0.1}}},
    ),
    "attack.offset_learning_rate=0.1": (
        {"attack.offset_learning_rate": 0.1},
        {"attack.offset_learning_rate": 0.1, "attack.offset_learnable": True},
    ),
    "attack.losses.adversarial_form=non-saturating": (
        {"attack.losses": {"adversarial_form": "non-saturating"}},
        {"attack.losses": {"adversarial": 0.1, "adversarial_form": "non-saturating"}},
    ),
    "attack.losses.surrogate": (
        {"attack.losses": {"surrogate": {"model": tiny.DIGIT}}},
        {"attack.losses": {"features": 0.1, "surrogate": {"model": tiny.DIGIT}}},
    ),
    "attack.process_every=3": (
        {"attack": {"name": "mia", "process_every": 3}, "evaluation.task": "class-inference"},
        {
            "attack": {"name": "mia", "process_every": 3, "process": "denoise-sharpen"},
            "evaluation.task": "class-inference",
        },
    ),
    "attack.alpha=2.0": (
        {"attack": {**SEARCH, "alpha": 2}},
        {"attack": {**SEARCH, "alpha": 2, "alpha_weight": 1}},
    ),
    "attack.variation_beta=1.0": (
        {"attack": {**SEARCH, "variation_beta": 1}},
        {"attack": {**SEARCH, "variation_beta": 1, "variation_weight": 0.1}},
    ),
    "attack.treat_every=9": (
        {"attack": {**SEARCH, "treat_every": 9}},
        {"attack": {**SEARCH, "treat_every": 9, "blur": 1}},
    ),
    **{
        f"attack.{field}={shown}": (
            {**PRIOR, "attack": {"name": name, "steps": 0, field: value}},
            {**PRIOR, "attack": {"name": name, "steps": 1, field: value}},
        )
        for name, field, value, shown in (
            ("gmi", "learning_rate", 0.5, "0.5"),
            ("gmi", "momentum", 0.5, "0.5"),
            ("gmi", "clip", 2, "2.0"),
            ("gmi", "identities", 1, "1"),
            ("ppa", "betas", [0.9, 0.999], "(0.9, 0.999)"),
            ("ppa", "crop", 0.5, "0.5"),
            ("mirror", "mirrors", False, "False"),
            ("mirror", "coupling", "released", "released"),
            ("mirror", "deviations", 2, "2.0"),
            ("vmi", "samples", 8, "8"),
            ("vmi", "divergence_weight", 1, "1.0"),
        )
    },
    **{
        f"attack.{field}={value}": (
            {**PRIOR, "attack": {"name": "mirror-black-box", field: value, **idle}},
            {**PRIOR, "attack": {"name": "mirror-black-box", field: value}},
        )
        for field, value, idle in (
            ("population", 9, {"generations": 0}),
            ("score", 0.5, {"generations": 0}),
            ("crossover", "released", {"generations": 0}),
            ("mutation", 0.5, {"generations": 0}),
            ("reach", 0.5, {"mutation": 0}),
            ("moves", "released", {"mutation": 0}),
        )
    },
    **{
        f"attack.{field}={value}": (
            {**PRIOR, "attack": {"name": "vmi", "family": "gaussian", field: value}},
            {**PRIOR, "attack": {"name": "vmi", field: value}},
        )
        for field, value in (("levels", 2), ("couplings", 3), ("width", 4), ("normalisation", "identity"))
    },
    "attack.views=9": (
        {**PRIOR, "attack": {"name": "ppa", "starts": 1, "views": 9}},
        {**PRIOR, "attack": {"name": "ppa", "starts": 2, "views": 9}},
    ),
    **{
        f"prior.{field}={value}": (
            {**PRIOR, "attack": GMI, f"prior.{field}": value},
            {**PLG, "attack": {"name": "plg-mi"}, f"prior.{field}": value},
        )
        for field, value in (
            ("images_per_class", 5),
            ("inversion_weight", 0.5),
            ("output_range", "released"),
        )
    },
    **{
        f"prior.{field}={value}": (
            {**PRIOR, "attack": GMI_ALONE, "prior": {"weights": "faces", field: value}},
            {**PRIOR, "attack": GMI, "prior": {field: value}},
        )
        for field, value in (
            ("dataset", "x"),
            ("epochs", 3),
            ("batch_size", 8),
            ("learning_rate", 0.5),
            ("critic_learning_rate", 0.5),
            ("critic_steps", 2),
            ("average", 0.5),
            ("augmentation", "none"),
            ("seed", 2),
        )
    },
    "attack.augmentations=5": (
        {**PLG, "attack": {"name": "plg-mi", "steps": 0, "augmentations": 5}},
        {**PLG, "attack": {"name": "plg-mi", "augmentations": 5}},
    ),
    **{
        f"attack.{field}={value}": (
            {**PRIOR, "attack": {"name": name, field: value}},
            {**PRIOR, "attack": {"name": name, field: value}, "prior.weights": "faces"},
        )
        for name, field, value in (
            ("ppa", "psi", 0.25),
            ("ppa", "cutoff", 3),
            ("ppa", "truncation", "corrected"),
            ("mirror", "psi", 0.75),
            ("mirror-black-box", "cutoff", 4),
        )
    },
    "attack.beside=5": (
        {**KEDMI, "attack": {"name": "kedmi", "prior_weight": 0, "beside": 5}},
        {**KEDMI, "attack": {"name": "kedmi", "beside": 5}},
    ),
    **{
        f"{path}.momentum=0.5": (
            {"attack.losses": {"features": 1, "surrogate": {"model": tiny.DIGIT}}, path: {"momentum": 0.5}},
            {
                "attack.losses": {"features": 1, "surrogate": {"model": tiny.DIGIT}},
                path: {"momentum": 0.5, "optimizer": "sgd"},
            },
        )
        for path in RECIPES
    },
}


@pytest.mark.parametrize(
    "changes",
    [
        {**PRIOR, "attack": {"name": "ppa", "steps": 0, "clip": 2}},
        {**KEDMI, "attack": {"name": "kedmi", "steps": 0, "clip": 2}},
        {**PRIOR, "attack": {"name": "ppa", "steps": 0, "mirrors": False}},
        {"attack": {"name": "mia", "score": 0.5}, "evaluation.task": "class-inference"},
    ],
    ids=["ppa", "kedmi", "ppa's mirrors", "mia's score"],
)
def test_what_is_read_without_steps_or_generations_is_admitted(changes: dict[str, Any]) -> None:
    assert list(unused([tiny.spec(changes)])) == []


@pytest.mark.parametrize("shown", CASES)
def test_a_setting_without_effect_is_refused_unless_a_trial_reads_it(shown: str) -> None:
    alone, read = (tiny.spec(changes) for changes in CASES[shown])
    (refusal,) = unused([alone, alone])
    assert str(refusal).startswith(f"{shown} changes nothing here: it needs ")
    assert str(refusal).endswith("; leave it out.")
    assert list(unused([alone, read])) == list(unused([read])) == []


def test_seeds_of_a_prior_that_others_trained_are_no_replicates() -> None:
    """The default among them changes nothing; a trial that trains a prior reads them."""
    study = tiny.study(
        {"prior.seed": [0, 1, 2]}, {**PRIOR, "attack": GMI_ALONE, "prior": {"weights": "faces"}}
    )
    points, _ = expand(study)
    assert len({normalise(point.spec).text for point in points}) == 1
    (refusal,) = unused(point.spec for point in points)
    assert (
        str(refusal) == "prior.seed=1 changes nothing here: it needs a prior without weights; leave it out."
    )
    trained = tiny.study({"prior.seed": [0, 1, 2]}, {**PRIOR, "attack": GMI_ALONE})
    assert list(unused(point.spec for point in expand(trained)[0])) == []


def test_the_values_of_another_loss_are_refused_as_the_loss() -> None:
    brought = tiny.spec({**PRIOR, "attack": GMI_ALONE, "prior": {"weights": "faces", "loss": "wgan-gp"}})
    assert [refusal.field for refusal in unused([brought])] == ["prior.loss"]

"""Spans modules: composed defenses: their specs, their changes to a network, and a loss that is a sum."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from orchestrator.config import Bido, Defense, DpSgd, Erasing, Loft, Mid, Recipe, Smoothing
from orchestrator.defenses import defended, needs_pixels, objective
from orchestrator.defenses.bido import penalty
from orchestrator.defenses.mid import MidHead
from orchestrator.defenses.smoothing import smoothed_cross_entropy
from orchestrator.models.ami import AmiClassifier
from orchestrator.models.classifier import Classifier
from orchestrator.models.freezing import freeze
from orchestrator.models.vgg import Vgg16
from orchestrator.training.loop import fit
from orchestrator.training.objectives import classification
from orchestrator.training.pairs import Pairs
from orchestrator.training.world import World

CLASSES = 3
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
QUIET = Mid(noise_at_inference=False)
ALL = Defense(mid=Mid(), bido=Bido(), smoothing=Smoothing())


def classifier(defense: Defense) -> Classifier:
    torch.manual_seed(0)
    network = AmiClassifier(classes=CLASSES, channels=1, image_size=32, width=0.01)
    return defended(network, defense, CLASSES)


def images() -> Tensor:
    return torch.rand(6, 1, 32, 32, generator=torch.Generator().manual_seed(1))


def loss(defense: Defense, network: Classifier) -> Tensor:
    """Return the loss of one batch with noise of its own."""
    torch.manual_seed(2)
    return objective(defense, CLASSES).loss(network, images(), LABELS)


@pytest.mark.parametrize("training", [True, False])
def test_the_loss_is_the_sum_of_its_parts(training: bool) -> None:
    defense = Defense(
        mid=Mid(weight=0.02), bido=Bido(weight_x=0.3, weight_y=0.7), smoothing=Smoothing(alpha=-0.1)
    )
    network = classifier(defense).train(training)
    found = loss(defense, network)
    torch.manual_seed(2)
    logits, hidden = network.with_hidden(images())
    assert isinstance(network.head, MidHead)
    assert network.head.divergence is not None
    assert defense.bido is not None
    assert len(hidden) == 3
    expected = smoothed_cross_entropy(logits, LABELS, -0.1)
    expected = expected + 0.02 * network.head.divergence
    expected = expected + penalty(defense.bido, images(), hidden, LABELS, CLASSES)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("defense", "is_more"),
    [
        (Defense(mid=Mid(weight=0.5)), True),
        (Defense(bido=Bido(weight_x=1.0, weight_y=0.0)), True),
        (Defense(bido=Bido(weight_x=0.0, weight_y=1.0)), False),
        (Defense(smoothing=Smoothing(alpha=-0.05)), None),
    ],
)
def test_each_defense_alone_changes_the_loss_and_trains(defense: Defense, is_more: bool | None) -> None:
    network = classifier(defense).train()
    found = loss(defense, network)
    plain = loss(Defense(), network)  # of the same network, with the same noise
    assert found.item() != plain.item()
    if is_more is not None:
        assert (found > plain).item() is is_more
    found.backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_no_defense_is_plain_classification() -> None:
    network = classifier(Defense())
    assert torch.equal(loss(Defense(), network.eval()), functional.cross_entropy(network(images()), LABELS))
    plain, none = classification(), objective(Defense(), CLASSES)
    assert none.loss.__code__ is plain.loss.__code__
    assert (none.begins, none.wrap, none.steps_by) == (plain.begins, plain.wrap, plain.steps_by)


@pytest.mark.parametrize("defense", [ALL, Defense(dp=DpSgd()), Defense(mid=Mid(), dp=DpSgd())])
def test_validation_is_that_of_any_classifier(defense: Defense) -> None:
    defense = defense.model_copy(update={"mid": defense.mid and QUIET})
    network = classifier(defense).eval()
    found, plain = objective(defense, CLASSES), classification()
    assert found.sums(network, images(), LABELS) == plain.sums(network, images(), LABELS)
    means = {"loss": 2.0, "accuracy": 0.5}
    assert found.selection_key(means) == plain.selection_key(means) == (-0.5, 2.0)


def test_smoothing_follows_the_epochs() -> None:
    defense = Defense(smoothing=Smoothing(alpha=-0.5, start=0.5, full=0.75))
    network = classifier(defense).eval()
    trained = objective(defense, CLASSES)
    for epoch, alpha in ((1, 0.0), (4, 0.0), (5, -0.25), (6, -0.5), (8, -0.5), (2, 0.0)):
        trained.begins(epoch, 8)
        expected = smoothed_cross_entropy(network(images()), LABELS, alpha)
        torch.testing.assert_close(trained.loss(network, images(), LABELS), expected)


def test_a_narrow_head_trains_under_a_budget() -> None:
    torch.manual_seed(0)
    network = AmiClassifier(classes=CLASSES, channels=1, image_size=32, width=0.01)
    freeze(network, "block3", "weights+statistics")
    defended(network, Defense(loft=Loft(rank=2)), CLASSES)
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    narrow = {"head.norm.weight", "head.norm.bias", "head.neck.weight", "head.neck.bias"}
    assert narrow | {"head.logits.weight", "head.logits.bias"} == {
        name for name in trained if name.startswith("head.")
    }
    assert network.train().head.training
    assert network(images()).shape == (6, CLASSES)
    defended(network, Defense(loft=Loft(rank=2, norm=False)), CLASSES)
    assert not any(name.startswith("norm.") for name in network.head.state_dict())


def test_a_defended_network_is_the_same_one_with_other_parts() -> None:
    torch.manual_seed(0)
    network = AmiClassifier(classes=CLASSES, channels=1, image_size=32, width=0.01)
    names = list(network.state_dict())
    assert defended(network, Defense(bido=Bido(), smoothing=Smoothing()), CLASSES) is network
    assert list(network.state_dict()) == names
    assert defended(network, Defense(mid=QUIET, dp=DpSgd()), CLASSES) is network
    assert isinstance(network.head, MidHead)
    assert network.head.noise_at_inference is False
    assert network(images()).shape == (6, CLASSES)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in network.modules())


def vgg(mid: Mid) -> Classifier:
    torch.manual_seed(0)
    return defended(Vgg16(classes=CLASSES, channels=1, image_size=32, width=0.05), Defense(mid=mid), CLASSES)


@pytest.mark.parametrize("replaces", [True, False])
def test_mid_replaces_vgg16s_norm_of_the_features_with_the_head(replaces: bool) -> None:
    network = vgg(Mid(replaces_norm=replaces)).train()
    plain = Vgg16(classes=CLASSES, channels=1, image_size=32, width=0.05)
    body = {name for name in plain.state_dict() if not name.startswith("head.")}
    norm = {name for name in body if name.startswith("blocks.norm.")}
    kept = {name for name in network.state_dict() if not name.startswith("head.")}
    assert norm
    assert kept == (body - norm if replaces else body)
    assert len(network.blocks) == len(plain.blocks)  # cut points and taps stay
    given = 5 * images()
    features = network.features(given)
    is_normal = torch.allclose(features.mean(0), torch.zeros(()), atol=1e-4)
    assert is_normal is not replaces
    torch.testing.assert_close(network.with_hidden(given)[1][-1], features)


@pytest.mark.parametrize(
    ("defense", "expected"),
    [(Defense(), False), (Defense(mid=Mid(), smoothing=Smoothing(), dp=DpSgd()), False), (ALL, True)],
)
def test_only_bido_needs_pixels(defense: Defense, expected: bool) -> None:
    assert needs_pixels(defense) is expected


@pytest.mark.parametrize(
    "defense",
    [
        ALL.model_copy(update={"mid": QUIET}),
        Defense(dp=DpSgd(noise_multiplier=0.5)),
        Defense(mid=QUIET, smoothing=Smoothing(), dp=DpSgd()),
        Defense(loft=Loft(rank=3), bido=Bido(), erasing=Erasing(), smoothing=Smoothing()),
        Defense(loft=Loft(rank=3), erasing=Erasing(), dp=DpSgd()),
    ],
)
def test_training_with_a_defense_repeats(defense: Defense) -> None:
    """With noise in training only, which `fit` seeds."""
    pairs = Pairs(images().repeat(5, 1, 1, 1), LABELS.repeat(5))
    states: list[dict[str, Tensor]] = []
    for _ in range(2):
        network = classifier(defense)
        names = list(network.state_dict())
        torch.manual_seed(len(states))  # which must not matter
        found = objective(defense, CLASSES)
        fit(network, pairs, found, Recipe(epochs=2, batch_size=8), 0, World(), chosen_on=pairs)
        states.append(network.state_dict())
        assert list(states[-1]) == names
    assert all(torch.equal(states[0][name], states[1][name]) for name in names)


def refused(model: type[Any], **values: Any) -> str:
    """Return why a spec is refused."""
    with pytest.raises(ValueError, match="validation error") as raised:
        model(**values)
    return str(raised.value)


def test_dp_with_bido_is_refused() -> None:
    expected = (
        "bido.kind=coco compares the images of a batch with each other: no image has a "
        "gradient of its own, for target.defense.dp to clip; set one of them to null."
    )
    assert expected in refused(Defense, dp=DpSgd(), bido=Bido(kind="coco"))


def test_two_heads_are_refused() -> None:
    expected = (
        "loft.rank=50 puts a narrow layer before the head, which target.defense.mid replaces by one of its "
        "own; set one of them to null."
    )
    assert expected in refused(Defense, mid=Mid(), loft=Loft())


def test_defenses_that_were_added_leave_the_keys_of_others() -> None:
    assert set(Defense(smoothing=Smoothing()).plain) == {"mid", "bido", "smoothing", "dp"}
    assert "ramp" not in Smoothing().plain


def test_a_schedule_that_ends_before_it_starts_is_refused() -> None:
    expected = (
        "start=0.5 must not exceed full=0.25, where alpha has its value; "
        "lower start or raise full (both 0: constant)."
    )
    assert expected in refused(Smoothing, start=0.5, full=0.25)


@pytest.mark.parametrize(
    ("model", "values", "expected"),
    [
        (Mid, {"weight": -0.1}, "greater than or equal to 0"),
        (Bido, {"weight_x": -0.1}, "greater than or equal to 0"),
        (Bido, {"sigma": 0.0}, "greater than 0"),
        (Smoothing, {"alpha": -1.0}, "greater than -1"),
        (Smoothing, {"alpha": 1.1}, "less than or equal to 1"),
        (DpSgd, {"max_grad_norm": 0.0}, "greater than 0"),
        (DpSgd, {"delta": 1.0}, "less than 1"),
        (Erasing, {"elongation": 0.5}, "greater than or equal to 1"),
        (Loft, {"rank": 0}, "greater than 0"),
        (Defense, {"mi": None}, "Extra inputs are not permitted"),
    ],
)
def test_values_out_of_range_are_refused(model: type[Any], values: dict[str, Any], expected: str) -> None:
    assert expected in refused(model, **values)

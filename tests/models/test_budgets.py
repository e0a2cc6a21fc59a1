"""What a budget means: the nearest cut point, its own name, or a refusal that names the nearest."""

import re

import pytest

from orchestrator import config
from orchestrator.config.budget import parse
from orchestrator.models.budgets import Frozen, counted, resolve_budget

DIGIT = config.Model(name="ami-digit")


@pytest.mark.parametrize(
    ("millions", "cut"),
    [(1.8885, "full"), (1.887, "block1"), (1.6, "block2"), (0.4, "block3"), ("84.5%", "block2")],
)
def test_a_number_means_the_nearest_cut(millions: float | str, cut: str) -> None:
    assert resolve_budget(DIGIT, parse(millions), classes=10, channels=1, image_size=32) == cut


@pytest.mark.parametrize(
    ("budget", "means"), [("block2", "block2"), ("first", "first"), ("middle", "block1"), ("last", "block2")]
)
def test_a_name_means_itself_or_the_cut_that_freezes_the_same(budget: str, means: str) -> None:
    assert resolve_budget(DIGIT, parse(budget), classes=10, channels=1, image_size=32) == means


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        (
            1.2,
            "target.budget=1.2 means 1,200,000 trained parameters, but no cut point of ami-digit comes "
            "within 5%; the nearest are block2 with 1,591,344 and block1 with 1,887,024; name one of them.",
        ),
        (
            "50%",
            "target.budget=50% means 944,280 trained parameters, but no cut point of ami-digit comes "
            "within 5%; the nearest are block3 with 410,160 and block2 with 1,591,344; name one of them.",
        ),
    ],
)
def test_a_budget_that_no_cut_meets_names_the_nearest(budget: float | str, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        resolve_budget(DIGIT, parse(budget), classes=10, channels=1, image_size=32)


def test_an_unknown_cut_lists_the_known() -> None:
    expected = r"target.budget=block9 is no cut point .* choose full, block1, block2, block3, a layer set"
    with pytest.raises(ValueError, match=expected):
        resolve_budget(DIGIT, parse("block9"), classes=10, channels=1, image_size=32)


def test_layers_in_front_move_the_frozen_blocks_and_no_count() -> None:
    signed = config.Model(name="ami-digit", scaling="signed")
    plain, moved = (
        counted(model, parse("first"), classes=10, channels=1, image_size=32) for model in (DIGIT, signed)
    )
    assert plain == Frozen("first", range(1, 2), 1_592_880, 1_888_560)
    assert moved == Frozen("first", range(2, 3), plain.trainable, plain.total)

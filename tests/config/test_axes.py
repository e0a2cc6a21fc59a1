"""Axes that undo each other and grids without bound are refused; axes that set different fields pass."""

from typing import Any

import pytest
from pydantic import ValidationError

from tests import tiny

SEVERAL = {"target.defense.mid.weight": [0.1]}


@pytest.mark.parametrize(
    ("sweep", "text"),
    [
        (
            {"seed": [0, 1], "target.seed": [5]},
            "sweep.target.seed sets target.seed, which sweep.seed sets too; sweep one of them.",
        ),
        (
            {"attack.seed": [5], "seed": [0, 1]},
            "sweep.seed sets attack.seed, which sweep.attack.seed sets too; sweep one of them.",
        ),
        (
            {"release": [{"truncation": 1}, {"decimals": 2}], "release.truncation": [1, 2]},
            "sweep.release.truncation sets release.truncation, which sweep.release sets too;",
        ),
        (
            {"target.recipe.epochs": [1, 2], "target": [{"recipe": {"batch_size": 4}}]},
            "sweep.target sets target.recipe.epochs, which sweep.target.recipe.epochs sets too;",
        ),
        (
            {"attack.offset": [1, 2], "attack": [{"name": "optimization"}]},
            "sweep.attack sets attack.offset, which sweep.attack.offset sets too;",
        ),
        (
            {"target.defense": [None, {"mid": {}}], **SEVERAL},
            "sweep.target.defense.mid.weight sets target.defense.mid.weight, which sweep.target.defense sets",
        ),
        (
            {**SEVERAL, "target.defense": [{"mid": {}}]},
            "sweep.target.defense sets target.defense.mid.weight, which sweep.target.defense.mid.weight sets",
        ),
        *(
            (
                {"release": [{"label": label, "truncation": 1}]},
                "sweep.release has a label that is no text or number of 1 to 100 characters; shorten it or "
                "leave it out.",
            )
            for label in ("", " ", "x" * 101, {"a": 1}, None, True, [1])
        ),
        ({"": [1]}, "sweep='' is no name of a field; write it like release.truncation."),
        ({"release.": [1]}, "sweep=release. is no name of a field;"),
        ({"release..truncation": [1]}, "sweep=release..truncation is no name of a field;"),
        (
            {"attack.offset": list(range(300)), "target.recipe.epochs": list(range(1, 301))},
            "sweep has 90000 points, more than 20000; draw some of them with search.algorithm=random, or "
            "split it into studies, which share the store.",
        ),
        (
            [{"attack.offset": list(range(15_000))}, {"release.truncation": list(range(1, 15_001))}],
            "sweep has 30000 points, more than 20000;",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_axes_that_cannot_be_swept_together(sweep: Any, text: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        tiny.study(sweep)
    assert text in str(refusal.value)


@pytest.mark.parametrize(
    "sweep",
    [
        {"target.recipe.epochs": [1, 2], "target.recipe": [{"batch_size": 4}]},
        {"target": [{"recipe": {"batch_size": 4}}], "target.recipe.epochs": [1, 2]},
        {"attack": [{"name": "optimization"}], "attack.seed": [1, 2]},
        {"target.defense": [{"label": "mid", "mid": {}}], **SEVERAL},
        [{"seed": [0]}, {"target.recipe.epochs": [1]}, {"seed": [1], "target.recipe.epochs": [1]}],
        {"release.truncation": list(range(1, 2001)), "seed": list(range(10))},
    ],
    ids=lambda value: str(value)[:40],
)
def test_axes_of_different_fields_are_swept_together(sweep: Any) -> None:
    tiny.study(sweep)

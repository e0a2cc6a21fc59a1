"""A budget is parsed once, and written as the user wrote it."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.config.budget import FULL, CutPoint, LayerSet, Millions, Percentage, parse
from tests import tiny


@pytest.mark.parametrize(
    ("written", "kind", "plain"),
    [
        ("full", CutPoint, "full"),
        ("conv5_3", CutPoint, "conv5_3"),
        ("middle", LayerSet, "middle"),
        ("40%", Percentage, "40%"),
        (2, Millions, 2.0),
        ("2", Millions, 2.0),
        (0.25, Millions, 0.25),
    ],
)
def test_a_spelling_has_one_kind_and_stays_as_written(written: Any, kind: type, plain: str | float) -> None:
    spec = tiny.spec({"target.budget": written})
    assert type(spec.target.budget) is kind
    assert spec.target.budget == plain
    (shown,) = json.loads(f"[{json.dumps(spec.target.model_dump(mode='json')['budget'])}]")
    assert (shown, type(shown)) == (plain, type(plain))
    assert parse(spec.target.budget) == spec.target.budget
    assert type(spec.but(target=spec.target).target.budget) is kind


def test_a_percentage_is_a_share() -> None:
    assert [Percentage(text).share for text in ("40%", "84.5%", "100%")] == [0.4, 0.845, 1.0]


def test_nothing_is_frozen_by_default() -> None:
    assert tiny.spec({"target": {"classes": 3, "model": tiny.DIGIT}}).target.budget == FULL


@pytest.mark.parametrize("written", ["0%", "101%", "%", "", "4 blocks", 0, -1, float("inf"), None])
def test_what_is_neither_is_refused(written: Any) -> None:
    with pytest.raises(ValidationError):
        parse(written)

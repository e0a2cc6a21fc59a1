"""Refusals are one line; specs are copied with validation; canonical JSON does not depend on order."""

import pickle

import pytest
from pydantic import ValidationError

from orchestrator.config import Release
from orchestrator.config.base import NO_VALUE, Refused, canonical, digest


def test_a_refusal_is_one_line_with_field_value_rule_and_way_out() -> None:
    refused = Refused("release.truncation", 600, "must lie in 1..target.classes=530", "use null for all")
    assert str(refused) == "release.truncation=600 must lie in 1..target.classes=530; use null for all."
    assert str(Refused("--store", NO_VALUE, "is missing", "name one")) == "--store is missing; name one."
    assert str(Refused("dataset", "x", "is unknown", "stage it").under("data")) == (
        "data.dataset=x is unknown; stage it."
    )


def test_a_refusal_reads_the_same_in_another_process() -> None:
    for refused in (Refused("--store", NO_VALUE, "is missing", "name one"), Refused("a", 1, "b", "c")):
        assert str(pickle.loads(pickle.dumps(refused))) == str(refused)


def test_but_replaces_fields_and_validates_them() -> None:
    assert Release(truncation=3).but(decimals=2) == Release(truncation=3, decimals=2)
    with pytest.raises(ValidationError, match="truncaton"):
        Release().but(truncaton=3)
    with pytest.raises(ValidationError, match="decimals"):
        Release().but(decimals="two")


def test_digests_depend_on_content_not_on_order() -> None:
    assert canonical({"b": 1, "a": [1, 2]}) == '{"a":[1,2],"b":1}'
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1}) != digest({"a": 2, "b": 2})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical(float("nan"))

"""Refusals are one line; specs are copied with validation; canonical JSON does not depend on order."""

import copy
import math
import pickle
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from orchestrator.config import Release, study
from orchestrator.config.base import (
    NO_VALUE,
    Model,
    Refused,
    Scalar,
    Spec,
    canonical,
    composed,
    digest,
    digest_of,
)
from orchestrator.config.service import Service
from tests import tiny


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


def specs(root: type[Spec] = Spec) -> Iterator[type[Spec]]:
    """Yield every spec of the package, studies and reports included."""
    for one in root.__subclasses__():
        yield one
        yield from specs(one)


SPECS: list[type[Spec]] = [study.Study, *specs()]
FIELDS = [
    (spec, name)
    for spec in dict.fromkeys(SPECS)
    if spec.__module__.startswith("orchestrator.config")
    for name in spec.model_fields
]


def takes(spec: type[Spec], name: str, value: object) -> bool:
    """Return whether a field by itself has nothing against a value."""
    try:
        spec.model_validate({name: value})
    except ValidationError as error:
        return all(fault["loc"][:1] != (name,) for fault in error.errors())
    return True


@pytest.mark.parametrize(("spec", "name"), FIELDS, ids=lambda part: getattr(part, "__name__", part))
def test_no_field_takes_a_number_that_nothing_can_compute_with(spec: type[Spec], name: str) -> None:
    """Only a printed number, an axis's values, which the field that they set checks, and a service's request
    are any finite one: nothing is computed with them."""
    annotation = spec.model_fields[name].annotation
    names_a_value = {*get_args(Scalar)} <= {*get_args(annotation)} or annotation == list[Any]
    is_any = name == "value" or names_a_value or (spec is Service and name == "request")
    numbers = [] if is_any else [10**30, -(10**30), 1e300, -1e300, 5e8]
    lists = [[number] for number in numbers]
    assert (
        [one for one in [math.nan, math.inf, *numbers, *lists] if takes(spec, name, one)]
        in (
            [],
            [5e8],  # a weight, a seed or a width
            *([[one]] for one in lists[4:]),
        )
    )


@pytest.mark.parametrize(("spec", "name"), FIELDS, ids=lambda part: getattr(part, "__name__", part))
def test_only_switches_take_true(spec: type[Spec], name: str) -> None:
    annotation = spec.model_fields[name].annotation
    is_switch = bool in (annotation, *get_args(annotation))
    assert takes(spec, name, True) == is_switch
    assert takes(spec, name, [True]) == (annotation == list[Any])  # an axis's values


def test_what_is_derived_of_a_part_is_one_object_and_no_part_of_it() -> None:
    model, same = Model(name="vgg16"), Model(name="vgg16")
    assert model.but(width=0.5) is model.but(width=0.5)
    assert model.but(width=0.5) is not model.but(width=0.25)
    assert model.text == canonical(model.model_dump(mode="json"))
    assert model == same
    assert hash(model) == hash(same)
    assert pickle.dumps(model) == pickle.dumps(same)
    assert model.model_dump() == same.model_dump()
    assert copy.deepcopy(model).but(width=0.5) is not model.but(width=0.5)


def test_a_text_composed_of_texts_is_the_canonical_one() -> None:
    spec = tiny.spec()
    plain = spec.model_dump(mode="json")
    assert composed({name: getattr(spec, name).text for name in plain}) == canonical(plain)
    assert digest_of(composed({})) == digest({})

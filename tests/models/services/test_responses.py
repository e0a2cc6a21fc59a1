"""Responses become rows of scores; what is not as described is one line that says where."""

from typing import Any

import numpy as np
import pytest

from orchestrator.config.base import Refused
from orchestrator.models.services.responses import Reader
from tests.config.test_service import PAIRS, described

LABELS: dict[str, Any] = {"labels": {"alpha": "a", "beta": "b"}}


def rows(content: Any, number: int = 1, **changes: Any) -> list[list[float]]:
    return [row.tolist() for row in Reader(described(**changes), "service").rows(content, number)]


def test_scores_are_read_by_place_or_label() -> None:
    assert rows({"scores": [0.5, 0.25, 0.25]}) == [[0.5, 0.25, 0.25]]
    some = {"scores": {"b": 0.5, "alpha": 0.25}}
    assert rows(some, **LABELS, releases=2) == [[0.25, 0.5, 0.0]]
    deep: dict[str, Any] = {"answers": "x.1", "scores": "y.0"}
    content = {"x": [0, [{"y": [[1, 0, 0]]}, {"y": [[0, 1, 0]]}]]}
    assert rows(content, 2, response=deep) == [[1, 0, 0], [0, 1, 0]]


def test_what_is_not_released_is_zero_and_the_rest_as_it_came() -> None:
    objects = {"top": [{"label": "beta", "score": 0.5}, {"label": "c", "score": 0.25}]}
    assert rows(objects, **PAIRS, **LABELS) == [[0.0, 0.5, 0.25]]
    assert rows({"top": [["c", 0.5], [0, 0.125]]}, **PAIRS) == [[0.125, 0.0, 0.5]]
    named: dict[str, Any] = {"response": {"pairs": "", "pair_label": "n", "pair_score": "p"}, "releases": 1}
    assert rows([{"n": "b", "p": 1}], **named) == [[0, 1, 0]]


def test_logits_become_their_softmax() -> None:
    (row,) = rows({"scores": [1000.0, 1000.0, 0.0]}, outputs="logits")
    assert row == [0.5, 0.5, 0.0]


def test_a_label_is_a_one() -> None:
    label: dict[str, Any] = {"outputs": "labels", "response": {"label": "best"}}
    assert rows({"best": "alpha"}, **label, **LABELS) == [[1, 0, 0]]
    assert rows({"best": 2}, **label) == [[0, 0, 1]]
    assert rows({"best": "2"}, **label, names=None, classes=3) == [[0, 0, 1]]


def test_a_number_is_a_name_or_a_place_as_described() -> None:
    numbers: dict[str, Any] = {"outputs": "labels", "names": ["2", "0", "x"]}
    for label in (2, "2"):
        by_name = {"label": "", "labels_are": "names"}
        assert rows(label, **numbers, response=by_name) == [[1, 0, 0]]
        by_place = {"label": "", "labels_are": "places"}
        assert rows(label, **numbers, response=by_place) == [[0, 0, 1]]
    assert rows("x", **numbers, response={"label": "", "labels_are": "places"}) == [[0, 0, 1]]


def test_sums_are_of_rounded_scores() -> None:
    assert rows({"scores": [0.34, 0.34, 0.34]})[0] == pytest.approx([0.34] * 3)
    many = [0.0012] * 1000
    with pytest.raises(Refused, match=r"holds scores of 0\.0012 to 0\.0012 with a sum of 1\.2, which are no"):
        rows({"scores": many}, names=None, classes=1000)


@pytest.mark.parametrize(
    ("content", "changes", "text"),
    [
        (
            {"other": 1},
            {},
            "service response.scores=scores finds no scores in an object with other; correct the",
        ),
        ([], {}, "service response.scores=scores finds no scores in a list; correct the description."),
        ({"scores": 1}, {}, "service response.scores is a number, not a list or an object; correct the"),
        ({"scores": [1, 0]}, {}, "service response.scores holds 2 scores, and the service has 3 classes"),
        (
            {"scores": [3, 0, 0]},
            {},
            "service response.scores holds scores of 0 to 3 with a sum of 3, which are no probabilities;",
        ),
        (
            {"scores": [1, 1, 0]},
            {},
            "service response.scores holds scores of 0 to 1 with a sum of 2, which are no probabilities;",
        ),
        (
            {"scores": [0.5, "x", 0]},
            {},
            "service response.scores holds 'x', which is no finite number; correct",
        ),
        (
            {"scores": [float("nan"), 0, 0]},
            {},
            "service response.scores holds 'nan', which is no finite number",
        ),
        ({"scores": {"d": 1}}, {}, "service labels has no 'd', which the service names; add it there."),
        ({"scores": {"a": 1}}, {"outputs": "logits"}, "service response.scores holds 1 logits of 3; correct"),
        (
            {"top": [["a", 0.4], ["b", 0.3], ["c", 0.3]]},
            PAIRS,
            "service response.pairs holds 3 scores, and releases=2; correct releases.",
        ),
        ({"top": [["a", 0.4], ["a", 0.3]]}, PAIRS, "service response.pairs holds class 0 twice; correct"),
        ({"top": []}, PAIRS, "service response.pairs is a list, not a list of pairs; correct"),
        (
            {"top": [{"label": "a"}]},
            PAIRS,
            "service response.pair_score=score finds no score in an object with label",
        ),
        (
            {"scores": [1, 0, 0]},
            {"response": {"answers": "scores", "scores": ""}},
            "holds 3 answers, and 1 images",
        ),
        ({"top": [[7, 0.4]]}, PAIRS, "service labels has no '7', which the service names; add it there."),
        ({"scores": [0, 0, 0]}, {}, "service response.scores holds no score above 0; correct"),
        ({"top": [["a", 0]]}, PAIRS, "service response.pairs holds no score above 0; correct"),
        ({"scores": {"a": 1}}, {}, "service response.scores holds 1 scores of 3; write in releases how many"),
        ({"scores": [10**400, 0, 0]}, {}, "holds 'an integer of 1329 bits', which is no finite number"),
        ({"scores": [10**5000, 0, 0]}, {}, "holds 'an integer of 16610 bits', which is no finite number"),
        ({"top": [[10**5000, 0.4]]}, PAIRS, "service labels has no 'an integer of 16610 bits'"),
        (
            {"scores": {"2": 1}},
            {"names": ["2", "0", "x"], "releases": 1},
            "service response.labels_are is needed: names or labels hold numbers that are not the places",
        ),
    ],
    ids=range(23),
)
def test_what_is_not_as_described_is_one_line(content: Any, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(Refused) as caught:
        rows(content, **changes)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_are_float32() -> None:
    (row,) = Reader(described(), "service").rows({"scores": [0.1, 0.2, 0.7]}, 1)
    assert row.dtype == np.float32

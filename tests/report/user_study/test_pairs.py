"""Pairs of a user study: which images are asked, how they are drawn, what is refused."""

from collections import Counter

import numpy as np
import pytest

from orchestrator.config.base import Refused, Scalar
from orchestrator.report.user_study.pairs import choose
from tests.report.user_study import trials
from tests.report.user_study.trials import FROZEN, FULL, new_store, picture, study, trial


def test_each_question_shows_the_images_that_its_key_names() -> None:
    questions, key = study()
    assert len(questions) == len(key.pairs) == 8  # two seeds, four images
    assert key.settings == ("budget=full", "budget=conv4_1")
    seen = set()
    for question, pair in zip(questions, key.pairs, strict=True):
        assert question.pair == pair
        first, second = (int(name) for name in pair.trials)
        assert second == first + 2  # the trial of the other setting that has the same seed
        assert np.array_equal(question.private, picture(0, pair.image))
        shown = {"left": question.left, "right": question.right}
        other = "right" if pair.first == "left" else "left"
        assert np.array_equal(shown[pair.first], picture(1 + first, pair.image))
        assert np.array_equal(shown[other], picture(1 + second, pair.image))
        assert pair.person == (0, 0, 1, 2)[pair.image]
        seen.add((first, pair.image))
    assert len(seen) == 8


def test_order_and_sides_are_drawn_by_the_seed_and_sides_are_balanced() -> None:
    (_, first), (_, again), (_, other) = study(seed=3), study(seed=3), study(seed=4)
    assert first == again
    assert first.page != other.page
    assert [pair.image for pair in first.pairs] != [pair.image for pair in other.pairs]
    assert Counter(pair.first for pair in study(seeds=10)[1].pairs) == {"left": 20, "right": 20}
    runs = "".join(pair.first[0] for pair in study(seeds=10)[1].pairs)
    assert "ll" in runs
    assert "rr" in runs


@pytest.mark.parametrize("seed", range(5))
def test_every_person_is_asked_before_any_is_asked_again(seed: int) -> None:
    assert sorted(pair.person for pair in study(num_pairs=3, seed=seed)[1].pairs) == [0, 1, 2]
    assert len(study(num_pairs=5, seed=seed)[1].pairs) == 5


def test_pairs_that_cannot_be_told_apart_and_other_originals_are_no_questions() -> None:
    store = new_store()
    one = trial(store, 0, FULL)
    same = [picture(1, 0), *(picture(9, place) for place in range(3))]  # the first is also one's
    others = [picture(0, 0), picture(0, 1), picture(8), picture(0, 3)]
    two = trial(store, 1, FROZEN, rebuilt=same, private=others)
    _, key = choose([one, two], store, "test", (FULL, FROZEN), study="s", num_pairs=9, seed=0)
    assert sorted(pair.image for pair in key.pairs) == [1, 3]


@pytest.mark.parametrize(
    ("first", "second", "line"),
    [
        ({"budget": "none"}, FROZEN, "{budget=none} fits nothing: no finished trial has budget=none; see"),
        ({"depth": 3}, FROZEN, "{depth=3} fits nothing: no finished trial has depth=3; see results.csv."),
        (FULL, FULL, "{budget=full} and {budget=full} are not two settings: they share a trial; narrow"),
        (FULL, {"seed": 1}, "{budget=full} and {seed=1} are not two settings: they share a trial; narrow"),
        (
            {**FULL, "seed": 0},
            {"m": 3},
            "{budget=full, seed=0} and {m=3} have no two finished trials that agree in all other axes; name",
        ),
    ],
)
def test_settings_without_pairs_are_refused(
    first: dict[str, Scalar], second: dict[str, Scalar], line: str
) -> None:
    store = new_store()
    records = [
        *trials.sweep(store),
        trial(store, 7, {"m": 3, "k": 1}),
        trial(store, 8, {**FULL, "seed": 0, "k": 2}),
    ]
    if second == {"m": 3}:
        records = records[4:]
    with pytest.raises(Refused) as caught:
        choose(records, store, "test", (first, second), study="s", num_pairs=9, seed=0)
    assert str(caught.value).startswith(f"--compare={line}")


def test_a_part_that_is_not_kept_is_refused() -> None:
    store = new_store()
    records = trials.sweep(store)
    with pytest.raises(Refused, match=r"keep no class images of one and the same private image that differ"):
        choose(records, store, "class", (FULL, FROZEN), study="s", num_pairs=9, seed=0)

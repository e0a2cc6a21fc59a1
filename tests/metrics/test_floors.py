"""Floors of class inference: who recognises a class, and what they recognise of it without an attack."""

import pytest
from scipy import stats

from orchestrator.metrics.floors import (
    LEVEL,
    at_least,
    at_least_of_both,
    floor_words,
    recognitions,
    unrecognised,
)
from orchestrator.metrics.skill import derived, unbeaten, unbeaten_words

PEOPLE = 62
GENERATED = {
    "class/mse_mean": 0.09,
    "class/skill": -0.8,
    "class/yardstick_grey_mse": 0.05,
    "class/judge_top1": 0.6,
    "class/floor_accepted": 1 / PEOPLE,
    "class/yardstick_grey_top1": 0.0,
    "yardstick/chance": 1 / PEOPLE,
    "yardstick/classes_inferred": float(PEOPLE),
}


def test_recognised_images_with_a_large_error_are_not_marked() -> None:
    assert unbeaten_words(GENERATED) == ""  # although a grey image has the smaller error
    assert unbeaten(GENERATED) == {}
    assert derived(GENERATED)["class/over_floor"] == pytest.approx((0.6 - 1 / 62) / (61 / 62))


@pytest.mark.parametrize(("hits", "words"), [(0, "chance (class)"), (3, "chance (class)"), (4, "")])
def test_recognition_at_chance_is_marked(hits: int, words: str) -> None:
    """Of 62 classes at 1/62 each, four hits or more are 1.8 %, three or more 7.8 %."""
    assert unbeaten_words({**GENERATED, "class/judge_top1": hits / PEOPLE}) == words
    tail = stats.binomtest(max(hits, 1), PEOPLE, 1 / PEOPLE, alternative="greater").pvalue
    assert at_least(max(hits, 1), PEOPLE, 1 / PEOPLE) == pytest.approx(tail)
    assert (tail < LEVEL) == (words == "")


def test_the_floor_is_the_largest_share_without_an_attack() -> None:
    look_up = {**GENERATED, "class/yardstick_label_top1": 0.55, "class/yardstick_random_top1": 0.5}
    (own,) = recognitions(look_up)
    assert (own.judge, own.floor_name, own.floor) == ("", "label", "class/yardstick_label_top1")
    assert unbeaten_words(look_up) == "label (class)"  # 37 of 62 at 0.55 are no surprise
    assert derived(look_up)["class/over_floor"] == pytest.approx(0.05 / 0.45)
    assert derived({**look_up, "class/yardstick_label_top1": 1.0})["class/over_floor"] == 0.0
    started = {**GENERATED, "class/floor_accepted": 0.7}
    assert floor_words(unrecognised(started)) == ["start (class)"]


@pytest.mark.parametrize(("hits", "words"), [(30, "label (class)"), (31, "label (class)"), (32, "")])
def test_a_floor_that_was_measured_varies_too(hits: int, words: str) -> None:
    """Beside 20 of 62 that a look-up has, 28 would be enough if 20 of 62 were known to be its share."""
    look_up = {**GENERATED, "class/yardstick_label_top1": 20 / PEOPLE, "class/judge_top1": hits / PEOPLE}
    assert at_least(28, PEOPLE, 20 / PEOPLE) < LEVEL
    p = stats.fisher_exact([[hits, PEOPLE - hits], [20, PEOPLE - 20]], alternative="greater").pvalue
    assert at_least_of_both(hits, 20, PEOPLE) == pytest.approx(p)
    assert (unbeaten_words(look_up), p < LEVEL) == (words, words == "")


def test_every_judge_is_asked() -> None:
    others = {
        "class.wide/judge_top1": 2 / PEOPLE,
        "class/recogniser_top1": 1 / PEOPLE,
        "yardstick/recogniser_chance": 1 / PEOPLE,
    }
    assert [one.judge for one in recognitions({**GENERATED, **others})] == ["", "wide", "recogniser"]
    assert unbeaten_words({**GENERATED, **others}) == ("chance (class by wide); chance (class by recogniser)")
    assert unbeaten_words({**GENERATED, **dict.fromkeys(others, 0.5), "yardstick/chance": 0.1}) == (
        "chance (class by recogniser)"
    )


def test_older_trials_are_compared_as_numbers_and_without_a_floor_not_at_all() -> None:
    assert recognitions({"class/judge_top1": 0.0}) == []
    older = {"class/judge_top1": 0.02, "yardstick/chance": 0.02}
    assert unbeaten_words(older) == "chance (class)"
    assert unbeaten_words({**older, "class/judge_top1": 0.03}) == ""


def test_the_binomial_tail_at_its_ends() -> None:
    assert at_least(0, 10, 0.3) == at_least(3, 10, 1.0) == 1.0
    assert at_least(1, 10, 0.0) == 0.0
    assert at_least(10, 10, 0.5) == pytest.approx(2**-10)
    assert at_least(1500, 2650, 0.5) == pytest.approx(stats.binom.sf(1499, 2650, 0.5))

"""Skill over the best yardstick and recognition over chance, by hand."""

import pytest

from orchestrator.metrics.skill import best_yardstick, derived, unbeaten, unbeaten_words

IMAGES = {
    "inversion/mse_test": 0.03,
    "yardstick/mean_mse_test": 0.08,
    "yardstick/label_mse_test": 0.05,
    "yardstick/bins_mse_test": 0.04,
    "yardstick/nearest_mse_test": 0.07,
}


def test_skill_is_over_the_best_yardstick() -> None:
    assert best_yardstick(IMAGES, "test") == "bins"
    assert derived(IMAGES) == {"inversion/skill_test": pytest.approx(0.25)}
    assert derived({**IMAGES, "inversion/mse_test": 0.06}) == {"inversion/skill_test": pytest.approx(-0.5)}
    grey = {"inversion/mse_train": 0.1, "yardstick/grey_mse_train": 0.1}
    assert derived(grey) == {"inversion/skill_train": 0.0}
    assert best_yardstick(grey, "train") == "grey"


def test_class_images_have_a_skill_of_their_own() -> None:
    images = {
        "class/mse_mean": 0.01,
        "class/yardstick_label_mse": 0.02,
        "class/yardstick_random_mse": 0.005,
        "class/judge_top1": 0.4,
        "yardstick/chance": 0.25,
    }
    assert best_yardstick(images, "class") == "random"
    assert derived(images) == {
        "class/skill": -1.0,
        "class/over_chance": pytest.approx(0.2),
        "class/over_floor": pytest.approx(0.2),
    }


def test_recognition_over_chance_is_0_at_chance_and_1_of_everything() -> None:
    chance = {"yardstick/chance": 0.1}
    for share, over in ((0.1, 0.0), (1.0, 1.0), (0.05, -1 / 18)):
        found = derived({**chance, "attack/accuracy_top1_test": share})
        assert found == {"attack/over_chance_test": pytest.approx(over)}


def test_what_was_not_measured_has_no_skill() -> None:
    assert derived({"inversion/mse_test": 0.1, "attack/accuracy_top1_test": 0.5}) == {}
    assert derived({"yardstick/mean_mse_test": 0.1, "yardstick/chance": 0.1}) == {}
    assert best_yardstick({}, "test") is None
    assert derived({"inversion/mse_test": 0.1, "yardstick/mean_mse_test": 0.0}) == {}


def test_yardsticks_that_are_not_beaten_are_named_with_their_parts() -> None:
    lost = {**IMAGES, "inversion/skill_test": 0.0, "inversion/skill_train": -0.1}
    lost["yardstick/mean_mse_train"] = 0.1
    assert unbeaten(lost) == {"test": "bins", "train": "mean"}
    assert unbeaten_words(lost) == "bins (test); mean (train)"
    assert unbeaten_words({**lost, "yardstick/mean_mse_train": 0.2, "yardstick/bins_mse_train": 0.1}) == (
        "bins (test, train)"
    )
    assert unbeaten_words({**IMAGES, "inversion/skill_test": 0.01}) == ""

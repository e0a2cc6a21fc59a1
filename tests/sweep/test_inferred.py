"""Inferred classes: how many there are, and which axes a row about several settings has."""

from orchestrator.sweep.inferred import bounds_of_classes, inferred_classes, shared_axes
from tests import tiny
from tests.report.trials import record

CLASSES = {"evaluation": {"task": "class-inference", "classes": [0, 2], "candidates": 3}}
TOP1 = {"class/judge_top1": 0.5}


def test_classes_are_counted_once_however_many_images_they_have() -> None:
    spec = tiny.spec({**CLASSES, "attack": {"name": "mia", "noise": 0.1}})
    assert inferred_classes(spec, TOP1) == {"yardstick/classes_inferred": 2.0}
    assert inferred_classes(spec, {}) == {}  # nothing was judged
    assert inferred_classes(tiny.spec({}), {"attack/accuracy_top1_test": 0.5}) == {}
    judged = tiny.spec(
        {**CLASSES, "attack": {"name": "mia", "noise": 0.1}, "judges": {"recogniser": {"weights": "faces"}}}
    )
    chance = 1 / judged.target.classes
    assert inferred_classes(judged, TOP1)["yardstick/recogniser_chance"] == chance


def test_axes_of_several_settings() -> None:
    every = [{"m": m, "align": align} for m in (1, 3, 5) for align in (True, False)]
    assert shared_axes(every, every) == {"m": "any", "align": "any"}
    assert shared_axes(every[:4], every) == {"m": "1, 3", "align": "any"}
    assert shared_axes(every[:1], every) == {"m": 1, "align": True}


def test_bounds_differ_by_what_their_trials_read() -> None:
    trials = [
        record(m, {"m": m}, {**TOP1, "class/ceiling_accepted": 0.9, "class/floor_accepted": floor})
        for m, floor in ((1, 0.1), (3, 0.2))
    ]
    shown = [(label, axes, values["class/judge_top1"]) for label, axes, values in bounds_of_classes(trials)]
    assert shown == [
        ("ceiling: held-out photographs", {"m": "any"}, 0.9),
        ("floor: start, not optimised", {"m": 1}, 0.1),
        ("floor: start, not optimised", {"m": 3}, 0.2),
    ]
    assert bounds_of_classes([record(0, {"m": 1}, TOP1)]) == []

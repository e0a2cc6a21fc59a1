"""Tables and charts of the page: values by hand."""

import itertools
import math
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from orchestrator.config.report import Report
from orchestrator.report.page.content import (
    MOST_DOTS,
    MOST_VALUES,
    Cell,
    Shades,
    axis_charts,
    cell,
    csv_table,
    heat_tables,
    tradeoff_chart,
    unvarying,
)
from orchestrator.report.page.front import Front, front, is_defence, is_task
from orchestrator.report.page.ranking import Ranking, ranking
from orchestrator.report.per_image import PerImage
from orchestrator.sweep.records import TrialRecord
from tests import tiny
from tests.report.page.trials import ACCURACY, SKILL, empty_store, sweep
from tests.report.trials import MSE, record

REPORT = Report()


def ranked(records: list[TrialRecord]) -> Ranking:
    """Return the ranking of a study over the tiny base."""
    found = ranking(tiny.study({"release.truncation": [1]}), records, PerImage(empty_store()))
    assert found is not None
    return found


def test_darker_is_what_leaks_more_in_either_direction() -> None:
    up, down = Shades([0.0, 1.0], 1.0), Shades([0.0, 1.0], -1.0)
    assert (up.share(1.0), up.share(0.0), down.share(1.0), down.share(0.0)) == (1.0, 0.0, 0.0, 1.0)
    dark, light = up.cell(1.0, "1").background, up.cell(0.0, "0").background
    assert sum(bytes.fromhex(dark[1:])) < sum(bytes.fromhex(light[1:]))
    assert down.cell(0.0, "0").background == dark
    assert Shades([0.5], 1.0).share(0.5) == 0.0


def test_the_front_has_who_is_not_beaten() -> None:
    values = {0: (0.9, 0.5), 1: (0.8, 0.2), 2: (0.8, 0.3), 3: (0.95, 0.9), 4: (0.7, 0.2), 5: (0.9, 0.5)}
    records = [record(i, {"m": i}, {ACCURACY: a, SKILL: s, MSE: 1.0}) for i, (a, s) in values.items()]
    assert [dict(one.setting)["m"] for one in front(ranked(records)).chosen] == [3, 0, 5, 1]


def test_the_front_has_the_strongest_attack_on_each_defence() -> None:
    rows = [  # budget, attack, accuracy, skill
        ("full", "strong", 0.9, 0.5),
        ("full", "weak", 0.9, -0.4),  # a weak adversary is no defence
        ("all", "strong", 0.7, 0.3),
        ("all", "weak", 0.7, 0.1),
        ("half", "strong", 0.6, 0.3),  # as much as `all` at less accuracy
    ]
    records = [
        record(i, {"budget": b, "attack": a}, {ACCURACY: accuracy, SKILL: skill, MSE: 1.0})
        for i, (b, a, accuracy, skill) in enumerate(rows)
    ]
    chosen = [tuple(dict(one.setting).values()) for one in front(ranked(records)).chosen]
    assert chosen == [("full", "strong"), ("all", "strong")]


def test_a_skill_below_0_is_as_good_as_0_for_the_front() -> None:
    values = {1: (0.9, -0.1), 3: (0.8, -0.9)}
    records = [
        record(i, {"m": m}, {ACCURACY: a, SKILL: s, MSE: 1.0}) for i, (m, (a, s)) in enumerate(values.items())
    ]
    assert [dict(one.setting)["m"] for one in front(ranked(records)).chosen] == [1]


def test_the_front_is_of_one_task_and_leaves_out_held_images_and_chance() -> None:
    def one(index: int, k: int, m: int, accuracy: float, skill: float, **more: Any) -> TrialRecord:
        return record(index, {"k": k, "m": m}, {ACCURACY: accuracy, SKILL: skill, MSE: 1.0}, **more)

    chance = {"yardstick/target_chance": 0.95, "yardstick/target_images": 1000.0}
    records = [
        one(0, 5, 1, 0.8, 0.2),
        one(1, 5, 3, 0.9, 0.4),
        one(2, 2, 1, 0.99, 0.1),  # two classes are another task, in which it is easier to be right
        one(3, 5, 5, 0.95, 0.3, held=("test",)),
    ]
    at_chance = one(4, 5, 7, 0.95, 0.01)
    records.append(record(4, at_chance.axes, {**at_chance.metrics, **chance}))
    found = front(ranked(records))
    assert [dict(own.setting) for own in found.chosen] == [{"k": 5, "m": 3}, {"k": 5, "m": 1}]
    assert "at k=5" in found.words
    assert "held" in found.words


@pytest.mark.parametrize(
    ("axis", "whose"),
    [
        *((axis, "defence") for axis in ("m", "release", "budget", "target.recipe.epochs")),
        *((axis, "task") for axis in ("k", "data.name")),
        *((axis, "") for axis in ("attack", "size", "releases")),
    ],
)
def test_whose_an_axis_is(axis: str, whose: str) -> None:
    assert (is_defence(axis), is_task(axis)) == (whose == "defence", whose == "task")


def test_without_other_accuracies_there_is_no_front() -> None:
    records = [record(i, {"m": i}, {ACCURACY: 0.9, SKILL: i / 10, MSE: 1.0}) for i in range(3)]
    found = front(ranked(records))
    assert found.chosen == []
    chart = tradeoff_chart(ranked(records), found, ["m"])
    assert chart is not None
    assert "No Pareto front: target/accuracy does not vary" in chart.caption


def test_what_is_not_finite_is_not_drawn_and_dots_are_bounded() -> None:
    records = [
        record(i, {"m": i}, {ACCURACY: 0.9, SKILL: -math.inf if i == 5 else i / 9999, MSE: 1.0})
        for i in range(MOST_DOTS + 10)
    ]
    chart = tradeoff_chart(ranked(records), Front([], ""), ["m"])
    assert chart is not None
    assert chart.svg.count("<circle") == MOST_DOTS
    assert f"Drawn are {MOST_DOTS} of {MOST_DOTS + 9} settings." in chart.caption


def test_an_axis_is_shown_over_what_all_its_values_share() -> None:
    records = sweep((1, 3), ("full", "block1"))[:-3]  # m=3 has no block1
    first, second = axis_charts(records, SKILL, 1.0, REPORT, ["m", "budget"])
    assert first.caption == "Others fixed: budget=full."
    assert second.caption == "Others fixed: m=1."
    assert ">0.2000 \u00b1 0.0050<" in first.svg
    assert ">0.4000 \u00b1 0.0050<" in first.svg
    ragged = [one for one in sweep() if (one.axes["m"] == 1) == (one.axes["budget"] == "full")]
    chart = axis_charts(ragged, SKILL, 1.0, REPORT, ["m", "budget"])[0]
    assert (chart.svg, chart.caption) == ("", "No two of its values share a setting of the other axes.")


def test_a_continuous_axis_is_scattered() -> None:
    records = [record(i, {"a": i / 7}, {SKILL: i / 50}) for i in range(MOST_VALUES + 1)]
    (chart,) = axis_charts(records, SKILL, 1.0, REPORT, ["a"])
    assert chart.svg.count("<circle") == MOST_VALUES + 1
    wide = [record(i, {"a": 10.0 ** (i / 4)}, {SKILL: i / 50}) for i in range(MOST_VALUES + 1)]
    (chart,) = axis_charts(wide, SKILL, 1.0, REPORT, ["a"])
    places = [float(one.get("cx", "")) for one in ET.fromstring(chart.svg).iter("circle")]
    steps = [after - before for before, after in itertools.pairwise(places)]
    assert max(steps) - min(steps) < 0.2 + 1e-9  # even steps of the logarithm
    words = [record(i, {"a": f"w{i}"}, {SKILL: i / 50}) for i in range(MOST_VALUES + 1)]
    assert "too many to draw" in axis_charts(words, SKILL, 1.0, REPORT, ["a"])[0].caption


def test_maps_are_means_of_shared_settings() -> None:
    (table,) = heat_tables(sweep(), SKILL, 1.0, ["m", "budget"])
    assert [[one.text for one in row] for row in table.rows] == [["1", "0.2", "0.16"], ["3", "0.4", "0.36"]]
    assert "Mean of 3 combinations" in table.note
    assert heat_tables([], SKILL, 1.0, ["m", "budget"]) == []


def test_a_csv_joins_halves_and_keeps_words() -> None:
    content = b"m,mse,mse +-,note,verdict\n1,0.123456,0.0123,long,holds\nall,,,long,\n"
    table = csv_table("x", "X", content)
    assert table.columns == ["m", "mse", "verdict"]
    assert [[one.text for one in row] for row in table.rows] == [
        ["1", "0.1235 \u00b1 0.012", "holds"],
        ["all", "", ""],
    ]
    assert table.rows[0][1].value == pytest.approx(0.123456)
    assert csv_table("x", "X", content, without=()).columns[-2:] == ["note", "verdict"]


def test_what_every_trial_shares_is_listed() -> None:
    def one(index: int, **params: int) -> TrialRecord:
        found = record(index, {})
        return TrialRecord(**{**vars(found), "params": params})

    assert unvarying([one(0, a=1, b=2), one(1, a=1, b=3)]) == {"a": 1}
    assert unvarying([]) == {}


def test_a_number_that_is_not_known_has_an_empty_cell() -> None:
    assert Shades([0.0, 1.0], 1.0).cell(math.nan, "nan") == Cell("")
    assert cell(math.nan) == Cell("")
    assert cell(math.inf) == Cell("inf")

"""Tables and charts of the page: values by hand."""

import math

import pytest

from orchestrator.config.report import Report
from orchestrator.report.page.content import (
    MOST_VALUES,
    Shades,
    axis_charts,
    csv_table,
    front,
    heat_tables,
    unvarying,
)
from orchestrator.report.page.ranking import ranking
from orchestrator.report.per_image import PerImage
from orchestrator.sweep.records import TrialRecord
from tests import tiny
from tests.report.page.trials import ACCURACY, SKILL, empty_store, sweep
from tests.report.trials import MSE, record

REPORT = Report()


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
    found = ranking(tiny.study({"release.truncation": [1]}), records, PerImage(empty_store()))
    assert found is not None
    assert [dict(one.setting)["m"] for one in front(found)] == [3, 0, 5, 1]


def test_an_axis_is_shown_over_what_all_its_values_share() -> None:
    records = sweep((1, 3), ("full", "block1"))[:-3]  # m=3 has no block1
    first, second = axis_charts(records, SKILL, 1.0, REPORT, ["m", "budget"])
    assert first.caption == "Others fixed: budget=full."
    assert second.caption == "Others fixed: m=1."
    assert ">0.2 \u00b1 0.005<" in first.svg
    assert ">0.4 \u00b1 0.005<" in first.svg
    ragged = [one for one in sweep() if (one.axes["m"] == 1) == (one.axes["budget"] == "full")]
    chart = axis_charts(ragged, SKILL, 1.0, REPORT, ["m", "budget"])[0]
    assert (chart.svg, chart.caption) == ("", "No two of its values share a setting of the other axes.")


def test_a_continuous_axis_is_scattered() -> None:
    records = [record(i, {"a": i / 7}, {SKILL: i / 50}) for i in range(MOST_VALUES + 1)]
    (chart,) = axis_charts(records, SKILL, 1.0, REPORT, ["a"])
    assert chart.svg.count("<circle") == MOST_VALUES + 1
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
    assert math.isnan(Shades([math.nan], 1.0).cell(math.nan, "").value or math.nan)

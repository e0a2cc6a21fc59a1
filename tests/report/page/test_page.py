"""The page of a sweep: well-formed, alone, escaped, and with the numbers of the sweep's tables."""

import io
import math
import re
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.metrics.pictures import encode_png
from orchestrator.report import tables
from orchestrator.report.page.page import PAGE, Context, _pictures, inline
from orchestrator.report.tables import report_files
from orchestrator.store.artifacts import Artifact
from orchestrator.sweep.records import TrialRecord
from tests import tiny
from tests.report.page.trials import ACCURACY, SKILL, TOP1, Page, empty_store, sweep
from tests.report.trials import FAILED, MSE, record

AXES = {"release.truncation": [1, 3], "target.budget": ["full", "block1"], "seed": [0, 1, 2]}
FINDINGS, PAGES = "orchestrator.report.page.findings", "orchestrator.report.page.page"
NUMBERED = ("1. ", "2. ", "3. ")
HOSTILE = """"'><script>alert(1)</script>&amp;"""


def files(records: list[TrialRecord], **sections: Any) -> dict[str, bytes]:
    """Return the report of a study over the tiny base."""
    return report_files(
        tiny.study(AXES, **sections), records, empty_store(), context=Context("inversion sweep tiny", 7)
    )


def page(records: list[TrialRecord], **sections: Any) -> Page:
    """Return the page, read strictly."""
    return Page(files(records, **sections)[PAGE])


def test_the_answer_has_the_setting_the_axis_and_their_numbers() -> None:
    records = sweep()
    report = files(records)
    seen = Page(report[PAGE])
    results = pd.read_csv(io.BytesIO(report["results.csv"]))
    by_setting = results.groupby(["m", "budget"])[SKILL].mean()
    m, budget = by_setting.sort_values().index.tolist()[-1]
    answer = seen.answer
    assert (
        f"m={m}, budget={budget} leaks most of the 4 settings that are shown to leak (of 4 tested, Holm): "
        f"{SKILL} {by_setting.max():.4f} \u00b1 0.0050 (95 % interval over 3 replicates"
    ) in answer
    accuracy = results.groupby(["m", "budget"])[ACCURACY].mean()[(m, budget)]
    assert f"At target accuracy {accuracy:.4f} \u00b1" in answer
    assert "the judge recognises 0.6" in answer
    assert "for 200 queries, 3 CPU seconds a trial" in answer
    value = results[SKILL]
    between = {axis: results.groupby(axis)[SKILL].transform("mean") for axis in ("m", "budget")}
    total = float(((value - value.mean()) ** 2).sum())
    shares = {axis: float(((own - value.mean()) ** 2).sum()) / total for axis, own in between.items()}
    assert (
        f"m has the largest share of one axis, not shown to be ahead of others: {100 * shares['m']:.0f} % of "
        f"the variance of {SKILL}; then budget {100 * shares['budget']:.0f} %"
    ) in answer
    assert MSE not in answer  # one metric in all lines
    table = pd.read_csv(io.BytesIO(report["importance.csv"]))
    table = table[table["metric"] == SKILL].set_index("source")
    assert table["share"][["m", "budget"]].tolist() == pytest.approx(
        [shares["m"], shares["budget"]], rel=1e-5
    )


def test_settings_are_sorted_by_skill_with_all_that_they_cost() -> None:
    table = page(sweep()).cells["settings-table"]
    head = ["m", "budget", "replicates", SKILL, MSE, ACCURACY, "recognised by judge", "queries"]
    assert table[0] == [*head, "CPU seconds a trial"]
    assert [row[:3] for row in table[1:]] == [
        ["3", "full", "3"],
        ["3", "block1", "3"],
        ["1", "full", "3"],
        ["1", "block1", "3"],
    ]
    assert [row[3].split()[0] for row in table[1:]] == ["0.4000", "0.3600", "0.2000", "0.1600"]
    assert table[1][-2:] == ["200", "3"]


def test_what_columns_mean_is_told_by_their_titles() -> None:
    seen = page(sweep())
    assert "recognised by judge" in seen.cells["settings-table"][0]
    assert f"recognised by judge: {TOP1}, share in [0, 1]; higher leaks more" in seen.section("settings")


def test_charts_and_maps_have_their_numbers_as_text() -> None:
    seen = page(sweep())
    assert seen.tags.count("svg") == 5  # leakage over accuracy, two axes, importance for error and for skill
    assert f"{SKILL} by m Mean of the 2 settings of the other axes that every value has." in seen.text
    for words in ("0.3800 \u00b1 0.0050", "0.1800 \u00b1 0.0050"):
        assert seen.text.count(words) == 1
    assert seen.tags.count("figcaption") == seen.tags.count("figure")
    assert seen.cells["map-0"] == [
        ["m \\ budget", "full", "block1"],
        ["1", "0.2", "0.16"],
        ["3", "0.4", "0.36"],
    ]
    assert seen.cells["front-table"][1:] == [
        ["1", "1", "full", *seen.cells["front-table"][1][3:]],
        ["2", "1", "block1", *seen.cells["front-table"][2][3:]],
    ]


def test_labels_of_users_are_text() -> None:
    seen = files(sweep(words=("full", HOSTILE)), about=f"About {HOSTILE}")[PAGE]
    assert b"<script>alert" not in seen
    assert seen.count(b"<script>") == 1
    read = Page(seen)
    assert f"About {HOSTILE}" in read.text
    assert any(HOSTILE in row for row in read.cells["settings-table"])
    failed = record(50, {"m": 9, "budget": HOSTILE, "seed": 0}, {}, "failed", error=HOSTILE, failed_stage="x")
    assert HOSTILE in page([*sweep(), failed]).text
    assert str(inline("- **a** `b` <i>")) == "<strong>a</strong> <code>b</code> &lt;i&gt;"
    assert str(inline("`a**b` and `c**d`")) == "<code>a**b</code> and <code>c**d</code>"
    error = "TypeError: f() got `x` and **y** and **z**"
    failures = [record(i, {"m": 9, "seed": i}, {}, "failed", error=error, failed_stage="x") for i in (50, 51)]
    assert f"failed: 0050, 0051 in x: {error}" in page([*sweep(), *failures]).text


def test_one_trial_has_a_page_without_intervals() -> None:
    seen = page(sweep((1,), ("full",), (0,)))
    assert "is not known: there is one setting" in seen.text
    assert "1 of 1 settings have one replicate: no interval" in seen.text
    assert "No setting is shown to leak" in seen.text  # nothing can be resampled
    assert seen.cells["settings-table"][1][1].startswith("0.202")
    assert "Each dot is a setting; one replicate has no interval." in seen.text


def test_links_to_parts_are_in_the_order_of_the_parts() -> None:
    seen = page(sweep(seeds=(0,)))  # which warns
    linked = [one.removeprefix("#") for one in seen.targets]
    assert {"warnings", "settings", "tradeoff", "costs"} <= set(linked)
    assert linked == [one for one in seen.ids if one in linked]


def test_where_nothing_finished_the_page_says_so() -> None:
    seen = page([FAILED])
    assert "No trial finished that measured what leaks." in seen.text
    assert 'failed: 0002 in inversion: ValueError: a "b", c' in seen.text


def test_nothing_is_called_worst_whose_interval_holds_0() -> None:
    noisy = [
        record(i, {"m": 1, "seed": i}, {SKILL: value, MSE: 1.0 - value, "yardstick/label_mse_test": 1.0})
        for i, value in enumerate((-0.5, 0.6, 0.5))
    ]
    seen = page(noisy)
    assert "No setting is shown to leak" in seen.text
    assert "the only setting: its interval holds 0" in seen.text
    assert "leaks most:" not in seen.text


def test_printed_numbers_orders_and_the_study_are_there() -> None:
    printed = [
        {"source": "Someone, Table 1", "label": "one", "where": {"m": 1}, "metric": TOP1, "value": 0.25}
    ]
    order = {"claim": "m leaks", "source": "S", "metric": TOP1, "axis": "m", "order": [1, 3]}
    seen = page(sweep(), report={"printed": printed, "orderings": [order]})
    assert seen.cells["comparison-csv"][1][:4] == ["Someone, Table 1", "one", TOP1, "0.25"]
    assert "holds" in seen.cells["orderings-csv"][1]
    assert "inversion sweep tiny" in seen.text
    assert "12 finished, 0 failed, 0 pruned; 7 points are not stored and not on this page." in seen.text
    assert f"study: {tiny.study(AXES).study}" in seen.text  # the resolved study
    assert "Files beside this page: " in seen.text
    assert PAGE not in seen.text.split("Files beside this page: ")[1]


def test_500_settings_make_a_small_page_quickly() -> None:
    generator = np.random.default_rng(0)
    records = [
        record(
            i,
            {"m": m, "k": k, "budget": f"b{b}", "seed": seed},
            {MSE: error, SKILL: 1 - error, "yardstick/label_mse_test": 1.0, ACCURACY: 0.9 - error / 9},
        )
        for i, (m, k, b, seed) in enumerate(np.ndindex(5, 10, 5, 2))
        for error in (0.5 - 0.05 * m + float(generator.normal()) / 50,)
    ]
    started = time.process_time()
    content = files(records)[PAGE]
    assert time.process_time() - started < 20
    assert len(content) < 1_000_000
    assert len(Page(content).cells["settings-table"]) == 251


def test_an_infinite_leakage_does_not_lose_the_report() -> None:
    records = [
        replace(one, metrics={**one.metrics, SKILL: -math.inf}) if one.axes["m"] == 1 else one
        for one in sweep()
    ]
    seen = page(records)
    assert seen.answer.startswith("budget=full, m=3 leaks most")
    assert "over 2 of 4 settings that form a complete grid, 3 replicates each; m is fixed at 3" in seen.answer
    assert "-inf" in {row[3] for row in seen.cells["settings-table"]}


@pytest.mark.parametrize(
    ("where", "section"),
    [
        (f"{FINDINGS}.ranking", "answer"),
        (f"{FINDINGS}.importances", "importance"),
        (f"{FINDINGS}.artifacts_of", "costs"),
        ("orchestrator.report.tables.bounds_table", "tables"),
        ("orchestrator.report.tables.heat_maps", "figures"),
        (f"{PAGES}.content.settings_table", "settings"),
        (f"{PAGES}.content.axis_charts", "axes"),
        (f"{PAGES}.front", "tradeoff"),
        (f"{PAGES}.spent_by_stage", "costs"),
        (f"{PAGES}.few_replicates", "warnings"),
        (f"{PAGES}._pictures", "figures"),
    ],
)
def test_a_fault_of_one_section_is_a_line_in_its_place(
    where: str, section: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = files(sweep())

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a fault\nof <one> section")

    monkeypatch.setattr(where, fail)
    found = files(sweep())
    seen = Page(found[PAGE])
    assert "could not be made: ZeroDivisionError: a fault of <one> section." in seen.section(section)
    assert f"section_left_out section={section}" in caplog.text
    others = {"answer", "settings", "importance", "costs", "axes", "fixed", "again"} - {section, "answer"}
    if where != f"{FINDINGS}.ranking":  # nothing of settings is known without it
        assert all(seen.section(other) for other in others)
        assert {name for name in whole if name.startswith(("results", "summary", "figure"))} <= found.keys()
    assert len(seen.faults) == 1
    assert "could not be made" not in Page(whole[PAGE]).text
    assert found["note.md"].decode().count("- **not in this report**: ") == len(seen.faults)


def test_a_fault_of_importance_leaves_the_first_lines_of_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Page(files(sweep())[PAGE]).answer

    def fail(*_: object) -> None:
        raise KeyError("m")

    monkeypatch.setattr(f"{FINDINGS}.importances", fail)
    found = files(sweep())
    answer = Page(found[PAGE]).answer
    assert whole.startswith(answer)
    assert "leaks most" in answer
    assert "importance.csv" not in found


def test_the_note_gives_the_answer_of_the_page() -> None:
    for records in (sweep(), sweep((1,), ("full",), (0,)), [FAILED]):
        found = files(records)
        lines = [line[3:] for line in found["note.md"].decode().splitlines() if line[:3] in NUMBERED]
        words = [" ".join(re.sub(r"[`*]", "", line).split()) for line in lines]
        assert " ".join(words) == Page(found[PAGE]).answer
        assert "Best `" not in found["note.md"].decode()


def test_the_forecast_of_the_start_stands_beside_what_the_stages_took() -> None:
    store = empty_store()
    keys = {"target": ["a" * 64, "b" * 64], "inversion": ["c" * 64, "d" * 64], "judge": ["e" * 64] * 2}
    took = {"a": 10.0, "b": 20.0, "c": 4.0, "e": 7.0}  # d is not stored
    for letter, seconds in took.items():
        stage = next(name for name, own in keys.items() if letter * 64 in own)
        cost = {"cpu_seconds": seconds, "wall_seconds": 99.0}
        store.publish(Artifact(letter * 64, stage, 1, {}, metrics={}, cost=cost, created_ms=1), {})
    trials = [
        replace(one, stage_keys={stage: own[at % 2] for stage, own in keys.items()})
        for at, one in enumerate(sweep())
    ]
    expected = {"seconds": 10.0, "low": 5.0, "high": 20.0}
    missing = {letter * 64: expected for letter in "ab"} | {letter * 64: None for letter in "cd"}
    context = Context("again", 0, {"forecast": {"missing": missing}})
    found = report_files(tiny.study(AXES), trials, store, context=context)
    seen = Page(found[PAGE])
    assert (
        "2 stages were expected to take 20 CPU seconds (10 to 40) when the sweep began and took 30, a factor "
        "of 1.50; 1 more had none and took 4."
    ) in seen.section("costs")
    assert seen.cells["forecast-table"][1:] == [
        ["target", "2", "20", "10 to 40", "30", "1.5", "0", "0"],
        ["inversion", "0", "", "", "", "", "1", "4"],
        ["all", "2", "20", "10 to 40", "30", "1.5", "1", "4"],
    ]
    table = pd.read_csv(io.BytesIO(found["forecast.csv"])).set_index("stage")
    assert table["factor"].tolist() == pytest.approx([1.5, math.nan, 1.5], nan_ok=True)
    assert table["their_seconds"].tolist() == [0, 4, 4]
    assert "forecast.tex" in found
    assert "No forecast was kept" in page(sweep()).section("costs")


def test_a_fault_of_the_page_loses_no_table(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> bytes:
        raise ZeroDivisionError("a fault\nof the page")

    monkeypatch.setattr(tables, "report_page", fail)
    found = files(sweep())
    assert PAGE not in found
    assert {"results.csv", "summary.csv", "importance.csv"} <= found.keys()
    (warning,) = [line for line in caplog.text.splitlines() if PAGE in line]
    assert "ZeroDivisionError" in warning


def test_costs_of_failed_trials_count() -> None:
    store = empty_store()
    cost = {"cpu_seconds": 7.0, "wall_seconds": 9.0}
    store.publish(Artifact("a" * 64, "s", 1, {}, metrics={}, cost=cost, created_ms=1), {})
    failed = replace(FAILED, stage_keys={"target": "a" * 64})
    study = tiny.study(AXES)
    content = report_files(study, [*sweep(), failed], store, context=Context("again", 0))[PAGE]
    assert "7 CPU seconds for 1 stages, those of failed and pruned trials too" in Page(content).text


def test_a_picture_without_room_leaves_room_for_others() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1600, 3), dtype=np.uint8)
    small = encode_png(np.full((8, 8, 3), 99, np.uint8))
    named = {f"curve-{at}.png": encode_png(noise) for at in "ab"} | {"curve-c.png": small}
    assert [one.title for one in _pictures(tiny.study(AXES), named)] == ["curve-a.png", "curve-c.png"]

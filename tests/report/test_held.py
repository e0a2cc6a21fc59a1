"""Marks of held images and of queries beyond the release: in every table, claim, note and caption."""

from collections.abc import Sequence
from csv import DictReader
from typing import Any

import pytest

from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.report.held import (
    MEANING,
    beyond,
    caption,
    claimed,
    note_lines,
    reads_held,
    remarks,
    row_label,
)
from orchestrator.report.tables import csv, latex, note, report_files, results_table, summary_table
from orchestrator.store.artifacts import Artifacts
from orchestrator.sweep.adversary import BEYOND
from orchestrator.sweep.records import TrialRecord
from tests import tiny
from tests.report.trials import MSE, record

TRAIN = "inversion/mse_train"
KINDS = {"same-heldout": (), "same-test": ("test",), "same-train": ("train",)}


def trials(*kinds: str, aligned: Sequence[bool] = (True,)) -> list[TrialRecord]:
    """Return trials over auxiliary kinds, alignment and two seeds, as the store gives them."""
    points = [(kind, align, seed) for kind in kinds for align in aligned for seed in (0, 1)]
    return [
        record(
            index,
            {"auxiliary": kind, "align": align, "seed": seed},
            {
                MSE: 0.5 - index / 100,
                TRAIN: 0.4 - index / 100,
                "target/accuracy": 0.9,
                BEYOND: 0.0 if align else 64.0,
            },
            held=KINDS[kind],
        )
        for index, (kind, align, seed) in enumerate(points)
    ]


def rows_of(files: dict[str, bytes], name: str) -> list[dict[str, Any]]:
    """Return a table of a report."""
    return list(DictReader(files[name].decode().splitlines()))


def reported(records: Sequence[TrialRecord], **report: Any) -> dict[str, bytes]:
    """Return the files of a report on these trials."""
    study = tiny.study({"auxiliary.kind": list(KINDS), "seed": [0, 1]}, report=report)
    return report_files(study, records, Artifacts(MemoryBlobs("memory")))


def test_results_and_summary_say_which_parts_were_held() -> None:
    files = reported(trials(*KINDS))
    assert [row["held"] for row in rows_of(files, "results.csv")] == [
        "",
        "",
        "test",
        "test",
        "train",
        "train",
    ]
    assert [row["held"] for row in rows_of(files, "summary.csv")] == ["", "test", "train"]
    assert b"& held &" in files["summary.tex"]
    assert f"{{l}}{{{MEANING}}} \\\\\n\\bottomrule".encode() in files["summary.tex"]


def test_a_table_without_marks_has_no_column_for_them() -> None:
    own = trials("same-heldout")
    assert "held" not in results_table(own)
    assert {"held", BEYOND}.isdisjoint(summary_table(own, [MSE]).columns)
    assert b"multicolumn" not in latex(summary_table(own, [MSE]))
    assert caption(summary_table(trials("same-test"), [MSE]).columns) == MEANING


def test_the_summary_counts_queries_beyond_the_release() -> None:
    table = summary_table(trials("same-heldout", aligned=(True, False)), [MSE])
    assert table[BEYOND].tolist() == ["", "64"]
    assert summary_table(trials("same-heldout", aligned=(True, False)), [BEYOND])[BEYOND].tolist() == [0, 64]
    assert csv(results_table(trials("same-heldout", aligned=(False,)))).decode().splitlines()[1] == (
        "0000,same-heldout,False,0,finished,0.5,0.4,0.9,64,,"
    )


def test_a_metric_reads_the_part_that_its_name_ends_with() -> None:
    (one, _) = trials("same-test")
    assert [reads_held(one, name) for name in (MSE, TRAIN, "target/accuracy")] == [True, False, False]
    images = record(0, {}, held=("class",))
    assert reads_held(images, "class/mse_nearest")


@pytest.mark.parametrize(
    ("metric", "where", "claim"),
    [
        (MSE, {"auxiliary": "same-heldout"}, "aligned leaks more"),
        (MSE, {"auxiliary": "same-test"}, "aligned leaks more, on images that the adversary held"),
        (TRAIN, {"auxiliary": "same-test"}, "aligned leaks more"),
        (TRAIN, {"auxiliary": "same-train"}, "aligned leaks more, on images that the adversary held"),
        ("target/accuracy", {"auxiliary": "same-train"}, "aligned leaks more"),
    ],
)
def test_an_ordering_that_reads_held_images_says_so(metric: str, where: dict[str, Any], claim: str) -> None:
    ordering = {"claim": "aligned leaks more", "source": "AMI", "metric": metric, "axis": "align"}
    asked = {"orderings": [{**ordering, "order": [False, True], "where": where}]}
    files = reported(trials(*KINDS, aligned=(False, True)), **asked)
    (row,) = rows_of(files, "orderings.csv")
    assert row["claim"] == claim
    assert row["note"] == "False: 64 queries beyond the release"
    assert claim.encode() in files["orderings.tex"]


def test_an_ordering_names_the_side_that_was_held() -> None:
    ordering = {"claim": "held images come out better", "source": "ours", "metric": MSE, "axis": "auxiliary"}
    files = reported(trials(*KINDS), orderings=[{**ordering, "order": ["same-heldout", "same-test"]}])
    (row,) = rows_of(files, "orderings.csv")
    assert row["claim"] == "held images come out better, on images that the adversary held (same-test)"
    assert row["note"] == ""
    one, other = trials("same-test", "same-heldout")[::2]
    assert claimed("x", MSE, {"a": [one], "b": [one, other]}).endswith("held")


def test_sides_with_equally_many_queries_beyond_the_release_share_a_remark() -> None:
    more, none = trials("same-heldout", aligned=(False,)), trials("same-heldout")
    assert beyond({"a": more, "b": more}.items()) == ["64 queries beyond the release"]
    assert beyond({"a": none, "b": more}.items()) == ["b: 64 queries beyond the release"]
    assert beyond({"a": none, "b": none}.items()) == beyond([]) == []


def test_a_printed_number_beside_held_images_says_so() -> None:
    printed = {"source": "AMI, Table II", "label": "G", "value": 0.5, "note": "theirs"}
    entries = [
        {**printed, "metric": metric, "where": {"auxiliary": "same-test", "align": align}}
        for metric, align in ((MSE, True), (TRAIN, True), (MSE, False))
    ]
    rows = rows_of(reported(trials("same-test", aligned=(True, False)), printed=entries), "comparison.csv")
    assert [row["note"] for row in rows] == [
        "theirs; on images that the adversary held",
        "theirs",
        "theirs; on images that the adversary held; 64 queries beyond the release",
    ]
    assert remarks(MSE, []) == []


def test_delta_and_curves_have_the_column() -> None:
    records = trials("same-test", "same-heldout")
    share = "attack/accuracy_top1_test"
    records = [
        record(one.index, {**one.axes, "budget": budget}, {share: 0.5, "target/accuracy": 0.9}, held=one.held)
        for one in records
        for budget in ("full", "block1")
    ]
    curve = {"name": "budgets", "line": "auxiliary", "points": "budget"}
    files = reported(records, delta={"reference": {"budget": "full"}, "leakage": share}, curves=[curve])
    assert [row["held"] for row in rows_of(files, "delta.csv")] == ["test", ""]
    assert [row["held"] for row in rows_of(files, "curve-budgets.csv")] == ["test", "test", "", ""]
    assert b"multicolumn" in files["delta.tex"]


def test_variances_say_whose_images_their_metric_read() -> None:
    files = reported(trials(*KINDS), metrics=[MSE, TRAIN])
    rows = [row for row in rows_of(files, "variance.csv") if row["metric"] in (MSE, TRAIN)]
    held = {(row["auxiliary"], row["metric"]): row["held"] for row in rows}
    assert held == {
        ("same-heldout", MSE): "",
        ("same-heldout", TRAIN): "",
        ("same-test", MSE): "test",
        ("same-test", TRAIN): "",
        ("same-train", MSE): "",
        ("same-train", TRAIN): "train",
    }
    assert MEANING.encode() in files["variance.tex"]
    assert b"held" not in reported(trials("same-heldout"))["variance.csv"].splitlines()[0]


def test_the_note_counts_trials_with_marks() -> None:
    study = tiny.study({"seed": [0]})
    text = note(study, trials(*KINDS, aligned=(True, False)), [])
    read = "metrics of the part `{}` read images that the adversary held."
    assert f"- held images: in 4 of 12 trials {read.format('test')}" in text
    assert f"- held images: in 4 of 12 trials {read.format('train')}" in text
    assert "- beyond the release: in 6 of 12 trials the attack trains on scores" in text
    assert note_lines(trials("same-heldout")) == []


@pytest.mark.parametrize(
    ("columns", "label"),
    [
        ({}, "m=1"),
        ({"aligned": [], "not aligned": []}, "m=1"),
        ({"aligned": ["test"], "not aligned": ["test"]}, "m=1, held: test"),
        ({"same-heldout": [], "same-test": ["test"]}, "m=1, held: test of same-test"),
        ({"-": ["train", "test"]}, "m=1, held: train, test"),
    ],
)
def test_a_row_of_pictures_is_labelled(columns: dict[str, list[str]], label: str) -> None:
    assert row_label("m=1", columns) == label

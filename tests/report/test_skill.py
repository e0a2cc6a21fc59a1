"""Cautions of reports: yardsticks that are not beaten, models at chance, and who may be called best."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from orchestrator.config.base import Scalar
from orchestrator.config.report import Report
from orchestrator.config.study import Study
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.metrics.floors import recognitions
from orchestrator.metrics.skill import derived
from orchestrator.report.page.ranking import ranking
from orchestrator.report.per_image import PerImage
from orchestrator.report.skill import (
    MOST_NAMED,
    UNBEATEN,
    at_chance,
    beats_yardsticks,
    best_lines,
    caution_lines,
    over_floor,
    same_start,
    summary_metrics,
    warnings,
)
from orchestrator.report.tables import latex, report_files, summary_table
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.sweep.points import flatten
from orchestrator.sweep.records import TrialRecord
from tests import tiny
from tests.report.trials import MSE, record

SKILL, LABEL, MEAN = "inversion/skill_test", "yardstick/label_mse_test", "yardstick/mean_mse_test"
EMPTY = Artifacts(MemoryBlobs("empty"))
NOTHING = PerImage(EMPTY)


def attack(
    index: int,
    error: float,
    axes: Mapping[str, Scalar] | None = None,
    more: Mapping[str, float] | None = None,
) -> TrialRecord:
    """Return a trial whose best yardstick is the label's mean image, with error 0.04."""
    metrics = {MSE: error, SKILL: 1 - error / 0.04, LABEL: 0.04, MEAN: 0.06, **(more or {})}
    keys = {"evaluation": f"ee{index}", "yardsticks": f"cc{index}"}
    return record(index, axes or {"m": index}, metrics, stage_keys=keys)


def publish(
    store: Artifacts, trial: TrialRecord, stage: str, field: str, values: Sequence[float], part: str = "test"
) -> None:
    """Store a value of one image for each class."""
    rows = np.array(list(enumerate(values)), dtype=[("label", np.int32), (field, np.float64)])
    buffer = io.BytesIO()
    np.save(buffer, rows)
    artifact = Artifact(trial.stage_keys[stage], stage, 1, {})
    store.publish(artifact, {f"per_image_{part}.npy": buffer.getvalue()})


def kept(records: Sequence[TrialRecord], errors: Sequence[Sequence[float]]) -> Artifacts:
    """Return a store with the errors of one image for each class; the yardstick's are 0.04."""
    store = Artifacts(MemoryBlobs("memory"))
    for trial, values in zip(records, errors, strict=True):
        publish(store, trial, "evaluation", "mse", values)
        publish(store, trial, "yardsticks", "label_mse", [0.04] * len(values))
    return store


def shown_to_leak(asked: Study, records: Sequence[TrialRecord], images: PerImage) -> list[str]:
    """Return the trials of the settings that may be called the worst; records have what is derived of metrics
    as those of stored trials do."""
    whole = [replace(one, metrics={**one.metrics, **derived(one.metrics)}) for one in records]
    ranked = ranking(asked, whole, images)
    assert ranked is not None
    return [member.name for one in ranked.shown for member in one.members]


PEOPLE = 62
TOP1, GREY_TOP1 = "class/judge_top1", "class/yardstick_grey_top1"


def generated(
    store: Artifacts, index: int, accepted: int, recognised: int | None = None, started: int = 1
) -> TrialRecord:
    """Return a trial whose images are worse than grey in squared error, and of which the judge accepts some,
    of the attack's start others, and a recogniser what it is asked for."""
    shares = {TOP1: accepted, "class/floor_accepted": started, GREY_TOP1: 1}
    more = {} if recognised is None else {"class/recogniser_top1": recognised}
    metrics = {name: hits / PEOPLE for name, hits in {**shares, **more, "yardstick/chance": 1}.items()}
    metrics |= {"class/skill": -0.8, "yardstick/classes_inferred": float(PEOPLE)}
    metrics |= {"yardstick/recogniser_chance": 1 / PEOPLE} if more else {}
    stages = ("evaluation", "retrieval", "yardsticks", "recognition")
    trial = record(index, {"m": index}, metrics, stage_keys={name: f"{name}{index}" for name in stages})
    fields = {"evaluation": (TOP1, accepted), "retrieval": ("class/floor_accepted", started)}
    fields |= {"yardsticks": (GREY_TOP1, 1)}
    fields |= {} if recognised is None else {"recognition": ("class/recogniser_top1", recognised)}
    for stage, (name, hits) in fields.items():
        values = [1.0] * hits + [0.0] * (PEOPLE - hits)
        publish(store, trial, stage, name.partition("/")[2], values, "class")
    return trial


def test_images_of_classes_are_marked_by_who_recognises_them() -> None:
    """A mean of 3 of 62 over the floor of one is 0.032 +- 0.055; 37 of 62 is 0.58 +- 0.13."""
    store = Artifacts(MemoryBlobs("memory"))
    records = [generated(store, 0, 37), generated(store, 1, 1), generated(store, 2, 3)]
    images = PerImage(store)
    table = summary_table(records, [TOP1], Report(), images)
    assert table[UNBEATEN].tolist()[:3] == ["", "chance (class)", "chance (class)"]
    assert b"chance (class)" in latex(table)
    files = report_files(study(), records, store)
    assert "chance (class)" in files["summary.csv"].decode()
    assert "chance (class)" in files["summary.tex"].decode()
    assert "no better than a yardstick: 2 of 3 trials: `0001`, `0002`" in files["note.md"].decode()
    (own,) = recognitions(records[2].metrics)
    found = over_floor([records[2]], own, images)
    assert (found.interval.low, found.interval.high) == pytest.approx((-0.0227, 0.0872), abs=1e-4)


def test_a_floor_is_compared_class_by_class() -> None:
    """Of a start that shows 20 people the attack shows the same 20 and six others: 6 of 62, 0.097 +- 0.076;
    the shares by themselves, 26 and 20 of 62, would overlap."""
    store = Artifacts(MemoryBlobs("memory"))
    trial = generated(store, 0, 26, started=20)
    assert UNBEATEN not in summary_table([trial], [TOP1], Report(), PerImage(store))
    (own,) = recognitions(trial.metrics)
    found = over_floor([trial], own, PerImage(store))
    assert (found.difference, found.interval.low) == pytest.approx((6 / 62, 0.0211), abs=1e-4)


def test_a_trial_is_called_best_only_if_every_judge_recognises_its_classes() -> None:
    store = Artifacts(MemoryBlobs("memory"))
    wanted = study(search={"objectives": {TOP1: "maximize"}})
    records = [generated(store, 0, 50, 1), generated(store, 1, 30, 20), generated(store, 2, 1, 1)]
    images = PerImage(store)
    assert shown_to_leak(wanted, records, images) == ["0001"]
    table = summary_table(records, [TOP1], Report(), images)
    assert table[UNBEATEN].tolist()[:3] == [
        "chance (class by recogniser)",
        "",
        "chance (class); chance (class by recogniser)",
    ]
    assert shown_to_leak(wanted, records[2:], images) == []


def test_classes_that_are_held_fixed_are_compared_over_seeds_or_as_numbers() -> None:
    store = Artifacts(MemoryBlobs("memory"))
    seeds = [
        replace(generated(store, i, hits), axes={"m": 1, "seed": i}) for i, hits in enumerate((37, 36, 38))
    ]
    fixed = Report(population=True)
    for members, is_shown in ((seeds, True), (seeds[:1], False)):
        assert UNBEATEN not in summary_table(members, [TOP1], fixed, PerImage(store))
        (own,) = recognitions(members[0].metrics)
        found = over_floor(members, own, PerImage(store), fixed)
        assert (found.verdict == "holds") == is_shown  # one seed has no interval


def study(**more: Any) -> tiny.Study:
    """Return a study over m."""
    return tiny.study({"release.truncation": [1]}, **more)


def test_a_setting_that_beats_no_yardstick_is_marked_in_every_table() -> None:
    axes = [{"m": 1, "seed": 0}, {"m": 1, "seed": 1}, {"m": 3, "seed": 0}, {"m": 3, "seed": 1}]
    records = [attack(i, error, axes[i]) for i, error in enumerate((0.05, 0.039, 0.041, 0.01))]
    table = summary_table(records, [MSE])
    assert table[UNBEATEN].tolist() == ["label (test)", ""]  # by the mean over seeds
    assert b"label (test)" in latex(table)
    files = report_files(study(), records, kept(records, [[0.04, 0.04]] * 4))
    assert "label (test)" in files["summary.csv"].decode()
    assert "label (test)" in files["summary.tex"].decode()
    assert "no better than a yardstick: 2 of 4 trials: `0000`, `0002`" in files["note.md"].decode()
    assert UNBEATEN not in summary_table(records[2:], [MSE])


def test_skill_and_accuracies_are_columns_where_they_were_measured() -> None:
    plain = study(report={"metrics": [MSE]})
    assert summary_metrics(plain, [record(0, {"m": 1}, {MSE: 0.1})]) == [MSE]
    measured = [attack(0, 0.02, more={"target/accuracy": 0.9, "judge/accuracy": 0.8})]
    assert summary_metrics(plain, measured) == [MSE, SKILL, "target/accuracy", "judge/accuracy"]
    classes = [record(0, {"m": 1}, {"class/skill": 0.1, "class/over_floor": 0.5})]
    assert summary_metrics(plain, classes) == [MSE, "class/over_floor", "class/skill"]
    assert summary_metrics(plain, [record(0, {"m": 1}, {TOP1: 0.5})]) == [MSE, TOP1]


def judged(index: int, model: str, hits: int, images: int = 50, chance: float = 0.2) -> TrialRecord:
    """Return a trial whose target or evaluation model classifies `hits` of its test images correctly."""
    kind = model.partition(".")[0]  # further judges have the chance of the judge
    names = (f"{model}/accuracy", f"yardstick/{kind}_chance", f"yardstick/{kind}_images")
    return record(index, {"m": index}, dict(zip(names, (hits / images, chance, float(images)), strict=True)))


@pytest.mark.parametrize("model", ["target", "judge", "judge.wide"])
def test_a_model_at_chance_is_named(model: str) -> None:
    """Of 50 images at 0.2 the binomial needs 18: P(X >= 17) = 0.0144, P(X >= 18) = 0.0063."""
    assert stats.binomtest(17, 50, 0.2, alternative="greater").pvalue == pytest.approx(0.0144, abs=1e-4)
    found = at_chance([judged(i, model, hits) for i, hits in enumerate((9, 17, 18, 50))])
    assert [(one.model, one.trial) for one in found] == [(model, "0000"), (model, "0001")]
    assert found[1].p == pytest.approx(stats.binomtest(17, 50, 0.2, alternative="greater").pvalue)
    (line,) = warnings(found)
    assert line == (
        f"the {model} is not better than chance (accuracy 0.18 on 50 test images, most frequent class 0.2) "
        "in 0000, 0001"
    )
    records = [judged(i, model, 3) for i in range(MOST_NAMED + 2)]
    assert warnings(at_chance(records))[0].endswith(f"{MOST_NAMED - 1:04d} and 2 more")
    assert caution_lines(records[:1]) == [f"- **warning**: {warnings(at_chance(records[:1]))[0]}"]
    assert f"{model},0000,0.06,0.2,50" in report_files(study(), records, EMPTY)["warnings.csv"].decode()


def test_a_judge_that_starts_where_the_target_does_is_named() -> None:
    same = {"target.pretrain.weights": "faces", "judge.weights": "faces"}
    further = {"judges.classifiers.other.weights": "faces", "judges.classifiers.plain.weights": "none"}
    none = {"target.pretrain.weights": "none", "judge.weights": "none"}
    starts: list[dict[str, Scalar]] = [{**same}, {**same, "judge.weights": "dogs", **further}, {**none}, {}]
    records = [replace(record(i, {"m": i}), params=params) for i, params in enumerate(starts)]
    assert caution_lines(records) == [
        f"- **warning**: the {judge} starts from the weights that the target starts from (faces), so that "
        f"what fools one may fool the other, in {trial}"
        for judge, trial in (("judge", "0000"), ("judge.other", "0001"))
    ]
    spec = tiny.spec(
        {"target.pretrain": {"weights": "faces"}, "target.budget": "full", "judge.weights": "faces"}
    )
    flat = flatten(spec.model_dump(mode="json"))  # the names are those of a trial's spec
    assert len(same_start([replace(record(0, {"m": 1}), params=flat)])) == 1


def test_what_has_no_chance_is_not_tested() -> None:
    assert at_chance([record(0, {"m": 1}, {"target/accuracy": 0.0})]) == []
    assert at_chance([record(0, {"m": 1}, judged(0, "target", 0).metrics, "failed")]) == []
    assert "warnings.csv" not in report_files(study(), [record(0, {"m": 1}, {MSE: 0.1})], EMPTY)


def test_the_best_is_one_that_is_shown_to_beat_the_yardsticks() -> None:
    records = [attack(0, 0.02), attack(1, 0.03)]
    unsure, sure = [0.0, 0.0, 0.0, 0.08], [0.028, 0.032, 0.03, 0.03]
    store = kept(records, [unsure, sure])
    assert shown_to_leak(study(), records, PerImage(store)) == ["0001"]
    verdicts = [beats_yardsticks([one], "test", PerImage(store)) for one in records]
    assert [one.verdict for one in verdicts if one] == ["not shown", "holds"]
    assert shown_to_leak(study(), records[:1], PerImage(store)) == []
    assert shown_to_leak(study(), records[1:], PerImage(store)) == ["0001"]


def test_without_values_by_image_seeds_decide() -> None:
    seeds = [attack(i, error, {"m": 1, "seed": i}) for i, error in enumerate((0.02, 0.021, 0.019))]
    assert shown_to_leak(study(), seeds, NOTHING) == ["0000", "0001", "0002"]
    assert shown_to_leak(study(), seeds[:1], NOTHING) == []  # no interval
    assert best_lines(study(), seeds) == []  # more leakage is better: the ranking names the setting


def test_an_objective_that_wants_less_leakage_needs_no_skill_but_a_target_above_chance() -> None:
    defender = study(search={"objectives": {MSE: "maximize"}})
    good, bad = (judged(0, "target", hits).metrics for hits in (50, 9))
    records = [attack(0, 0.05, more=good), attack(1, 0.09, more=bad)]
    assert best_lines(defender, records) == [
        f"Best `{MSE}`: 0.05 in `0000`, of the 1 without a model at chance."
    ]
    assert best_lines(defender, records[1:]) == [
        f"No trial is called best by `{MSE}`: all have a model at chance."
    ]
    utility = study(search={"objectives": {"target/accuracy": "maximize"}})
    assert best_lines(utility, records[:1]) == ["Best `target/accuracy`: 1 in `0000`."]
    assert best_lines(utility, []) == []

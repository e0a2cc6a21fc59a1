"""Variance components: planted ones come back, and what a sweep does not tell apart says so."""

import io
import math
from collections.abc import Mapping

import numpy as np
import pytest

from orchestrator.config.base import Scalar
from orchestrator.config.report import Report
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.metrics.names import MetricName
from orchestrator.report.per_image import PerImage
from orchestrator.report.tables import report_files
from orchestrator.report.variance import components, variance_table
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.sweep.records import TrialRecord
from tests import tiny
from tests.report.trials import MSE, grid, record


def with_values(
    store: Artifacts, index: int, axes: Mapping[str, Scalar], labels: np.ndarray, values: np.ndarray
) -> TrialRecord:
    """Return a trial with a value for each image."""
    rows = np.empty(len(labels), [("label", "i4"), ("mse", "f8")])
    rows["label"], rows["mse"] = labels, values
    buffer = io.BytesIO()
    np.save(buffer, rows)
    store.publish(Artifact(f"e{index}", "evaluation", 1, {}), {"per_image_test.npy": buffer.getvalue()})
    keys = {"evaluation": f"e{index}"}
    return record(index, axes, {MSE: float(values.mean())}, stage_keys=keys)


@pytest.fixture
def store() -> Artifacts:
    """Return an empty store."""
    return Artifacts(MemoryBlobs("memory"))


def deviations(records: list[TrialRecord], store: Artifacts) -> dict[str, float]:
    """Return the standard deviation of each source."""
    found = components(records, MSE, PerImage(store), Report())
    return {one.source: math.sqrt(one.variance) for one in found}


def test_images_without_a_value_take_no_part(store: Artifacts) -> None:
    labels = np.repeat(np.arange(20), 3)
    values = np.random.default_rng(5).normal(0, 1.0, (4, len(labels)))
    every, more = (
        [
            with_values(store, start + seed, {"attack.seed": seed}, np.append(labels, added), row)
            for seed, row in enumerate(np.hstack([values, np.full((4, len(added)), np.nan)]))
        ]
        for start, added in ((0, []), (10, [20, 21]))
    )
    assert deviations(more, store) == deviations(every, store)


ACCEPTED = "attack/accuracy_top1_test"


def judged(store: Artifacts, seed: int, values: Mapping[str, np.ndarray], labels: np.ndarray) -> TrialRecord:
    """Return a trial of one seed with what judges, the own one first, accept of each image."""
    keys = dict(zip(values, ("evaluation", *(f"judgement.{name}" for name in list(values)[1:])), strict=True))
    metrics = {}
    for name, stage in keys.items():
        rows = np.empty(len(labels), [("label", "i4"), ("accuracy_top1", "f8")])
        rows["label"], rows["accuracy_top1"] = labels, values[name]
        buffer = io.BytesIO()
        np.save(buffer, rows)
        key = f"{name}{seed}"
        store.publish(
            Artifact(key, stage.partition(".")[0], 1, {}), {"per_image_test.npy": buffer.getvalue()}
        )
        full = MetricName.parse(ACCEPTED)
        metrics[str(full if stage == "evaluation" else full.of_judge(name))] = float(values[name].mean())
    stages = {stage: f"{name}{seed}" for name, stage in keys.items()}
    return record(seed, {"seed": seed}, metrics, stage_keys=stages)


def test_judges_are_a_source_of_their_own(store: Artifacts) -> None:
    """Six judges with effects of 0.2, six seeds with 0.1, 400 images with 0.3 and noise of 0.1."""
    generator = np.random.default_rng(11)
    names = ("judge", "wide", "other", "deep", "late", "early")
    effects = dict(zip(names, scaled(generator, len(names), 0.2), strict=True))
    seeds, images = scaled(generator, 6, 0.1), scaled(generator, 400, 0.3)
    labels = np.repeat(np.arange(100), 4)
    trials = [
        judged(
            store,
            seed,
            {name: effects[name] + seeds[seed] + images + generator.normal(0, 0.1, 400) for name in names},
            labels,
        )
        for seed in range(6)
    ]
    table = variance_table(Report(), [ACCEPTED], trials, PerImage(store))
    own, every = (table[table["metric"] == name] for name in (ACCEPTED, f"{ACCEPTED}, all judges"))
    assert "judges" not in own["source"].tolist()
    found = dict(zip(every["source"], every["deviation"], strict=True))
    assert dict(zip(every["source"], every["levels"], strict=True))["judges"] == 6
    assert found["judges"] == pytest.approx(0.2, rel=0.05)
    assert found["seed"] == pytest.approx(0.1, rel=0.1)
    assert found["residual"] == pytest.approx(0.1, rel=0.05)
    assert found["images"] == pytest.approx(0.3, rel=0.1)
    assert every["share"].sum() == pytest.approx(1.0)


def test_one_seed_with_two_judges_has_their_spread(store: Artifacts) -> None:
    labels = np.arange(4)
    values = {"judge": np.array([1.0, 1.0, 1.0, 0.0]), "wide": np.array([1.0, 0.0, 0.0, 0.0])}
    table = variance_table(Report(), [ACCEPTED], [judged(store, 0, values, labels)], PerImage(store))
    every = table[table["metric"] == f"{ACCEPTED}, all judges"]
    deviation = dict(zip(every["source"], every["deviation"], strict=True))["judges"]
    residual = 8 * 0.25**2 / 3  # squares of what judge and image leave, over their degrees of freedom
    assert deviation == pytest.approx(math.sqrt(0.125 - residual / 4))  # means 0.75 and 0.25


def scaled(generator: np.random.Generator, size: int, deviation: float) -> np.ndarray:
    """Return effects with just this standard deviation and a mean of 0."""
    drawn = generator.normal(size=size)
    effects: np.ndarray = (drawn - drawn.mean()) / drawn.std(ddof=1) * deviation
    return effects


def test_planted_components_come_back(store: Artifacts) -> None:
    generator = np.random.default_rng(4)
    labels = np.repeat(np.arange(150), 6)
    f, g = generator.normal(0, 2.0, 12), generator.normal(0, 0.7, 12)
    classes, images = generator.normal(0, 1.0, 150)[labels], generator.normal(0, 0.5, len(labels))
    records: list[TrialRecord] = []
    for i in range(12):
        for j in range(12):
            values = 9 + f[i] + g[j] + classes + images + generator.normal(0, 0.2, len(labels))
            axes: dict[str, Scalar] = {"target.seed": i, "attack.seed": j}
            records.append(with_values(store, len(records), axes, labels, values))
    found = deviations(records, store)
    assert list(found) == ["target.seed", "attack.seed", "classes", "images", "residual"]
    assert found["target.seed"] == pytest.approx(f.std(ddof=1), rel=0.01)
    assert found["attack.seed"] == pytest.approx(g.std(ddof=1), rel=0.01)
    assert found["classes"] == pytest.approx(1.0, rel=0.15)
    assert found["images"] == pytest.approx(0.5, rel=0.05)
    assert found["residual"] == pytest.approx(0.2, rel=0.02)


def test_components_by_hand(store: Artifacts) -> None:
    labels = np.array([0, 0, 1, 1])
    first = np.array([1.0, 3.0, 6.0, 6.0])
    records = [
        with_values(store, seed, {"seed": seed}, labels, first + shift + noise)
        for seed, shift, noise in ((0, 0.0, np.zeros(4)), (1, 2.0, np.array([0.4, -0.4, 0.0, 0.0])))
    ]
    found = {one.source: one for one in components(records, MSE, PerImage(store), Report())}
    residual = 4 * 0.2**2 / 3  # 0.2 on either side is left of two images; three degrees of freedom
    image_means = np.array([2.2, 3.8, 7.0, 7.0])
    within = (0.8**2 + 0.8**2) / 2
    assert found["residual"].variance == pytest.approx(residual)
    assert found["seed"].variance == pytest.approx(2.0 - residual / 4)  # means of seeds are 4 and 6
    assert found["images"].variance == pytest.approx(within - residual / 2)
    assert found["classes"].variance == pytest.approx((7 - image_means[:2].mean()) ** 2 / 2 - within / 2)
    assert found["seed"].note == "target.seed and attack.seed move together: not told apart"


def test_what_cannot_be_told_apart_says_so(store: Artifacts) -> None:
    labels, values = np.array([0, 0, 1, 1]), np.array([1.0, 3.0, 6.0, 6.0])
    alone = components([with_values(store, 0, {"seed": 0}, labels, values)], MSE, PerImage(store), Report())
    assert [(one.source, one.note) for one in alone] == [
        ("seeds", "one seed"),
        ("classes", ""),
        ("images and residual", "one seed: not told apart"),
    ]
    assert alone[2].variance == pytest.approx(1.0)
    records = [
        with_values(store, 1 + seed, {"seed": seed}, np.arange(3), np.array([1.0, 2.0, 3.0 + seed]))
        for seed in (0, 1)
    ]
    found = components(records, MSE, PerImage(store), Report())
    assert [one.source for one in found] == ["seed", "classes and images", "residual"]
    assert found[1].note == "one image of each class: not told apart"
    other = [
        with_values(store, 5 + seed, {"evaluation.seed": seed}, labels, values + seed) for seed in (0, 1)
    ]
    found = components(other, MSE, PerImage(store), Report())
    assert [one.source for one in found] == ["evaluation.seed", "classes", "images and residual"]
    assert found[2].note == "other images in each trial: not told apart"
    numbers = components(grid({(1, 5): [0.1, 0.2]}), MSE, PerImage(store), Report())
    assert [(one.source, one.variance) for one in numbers] == [("seed", pytest.approx(0.005))]
    assert numbers[0].note == "one number for each: not told apart from all else that differs"
    assert components(grid({(1, 5): [0.1]}), MSE, PerImage(store), Report()) == []


def test_the_table_has_a_row_for_each_source_of_each_setting(store: Artifacts) -> None:
    records = grid({(1, 5): [0.1, 0.2], (3, 5): [0.3, 0.3]})
    table = variance_table(Report(), [MSE, "attack/queries"], records, PerImage(store))
    assert table[["m", "k", "metric", "source", "levels"]].to_numpy().tolist() == [
        [1, 5, MSE, "seed", 2],
        [3, 5, MSE, "seed", 2],
    ]
    assert table["deviation"].tolist() == pytest.approx([math.sqrt(0.005), 0.0])
    assert table["share"].tolist()[0] == 1.0
    assert math.isnan(table["share"][1])
    study = tiny.study({"release.truncation": [1, 3], "seed": [0, 1]})
    files = report_files(study, records, store)
    assert files["variance.csv"].decode().splitlines()[0] == "m,k,metric,source,levels,deviation,share,note"
    assert files == report_files(study, records[::-1], store)
    assert "variance.csv" not in report_files(study, records[::2], store)

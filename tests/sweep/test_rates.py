"""Rates: what stored stages say of planned ones, with a fixed part and an honest interval."""

import math
from typing import Any

import numpy as np
import pytest

from orchestrator.datasets import Location
from orchestrator.stages.stage import Profile
from orchestrator.stages.workload import Work
from orchestrator.store.artifacts import Artifact
from orchestrator.sweep.image_counts import ImageCounts
from orchestrator.sweep.rates import LEAST_SECONDS, NORMAL, REACH, Rates, Sample, _fitted
from tests import tiny

NO_SIZES = ImageCounts(Location(), {})
SAME: dict[str, Any] = {"bias": 0.05, "has_fixed": True}


def sample(total: float, seconds: float) -> Sample:
    return Sample("target", True, "net", 1.0, total, seconds)


def test_a_fixed_part_is_told_from_the_rest_where_works_differ() -> None:
    samples = [sample(total, 2.0 + total / 10) for total in (10.0, 40.0, 100.0)]
    assert _fitted(samples, 200.0, **SAME).seconds == pytest.approx(22.0, rel=1e-6)
    assert _fitted(samples, 1.0, **SAME).seconds == pytest.approx(2.1, rel=1e-6)


def test_where_works_are_alike_all_of_a_time_is_in_proportion() -> None:
    samples = [sample(100.0, 10.0), sample(120.0, 12.0)]
    assert _fitted(samples, 100_000.0, **SAME).seconds == pytest.approx(10_000.0)
    falling = [sample(10.0, 10.0), sample(100.0, 5.0)]
    assert _fitted(falling, 1000.0, **SAME).seconds == pytest.approx(1000.0 * math.sqrt(1.0 * 0.05))


def test_intervals_hold_nine_of_ten_new_times() -> None:
    drawn = np.random.default_rng(0)
    inside = 0
    for _ in range(1000):
        load = drawn.normal(0, 0.08)
        times = np.exp(drawn.normal(0, 0.2, 6))
        found = _fitted([sample(100.0, float(time)) for time in times[:5]], 100.0, **SAME)
        inside += found.low < times[5] * math.exp(load) < found.high
    assert 0.86 < inside / 1000 < 0.97


def test_doubt_that_samples_share_is_not_averaged_away() -> None:
    rates, work = Rates([], {}), Work("net", 1.0, lambda sizes: 10.0, trained=1.0)
    biased = Sample("target", True, "other", 1.0, 10.0, 1.0)
    rates._samples[("cpu", "float32", "1", "1")] = [biased] * 100
    found = rates.estimate("target", work, 10.0, vars(Profile()))
    assert found is not None
    assert found.high / found.seconds > math.exp(NORMAL * 0.5)
    few, many = (_fitted([sample(10.0, 1.0)] * count, 1e6, 0.3, has_fixed=False) for count in (1, 1000))
    assert math.exp(NORMAL * math.hypot(0.3, REACH * math.log(1e5))) < many.high / many.seconds
    assert many.high / many.seconds < few.high / few.seconds


def test_the_nearest_kind_is_asked_and_no_other_that_agrees_more() -> None:
    rates, work = Rates([], {}), Work("net", 1.0, lambda sizes: 10.0, trained=1.0)
    own = [sample(10.0, seconds) for seconds in (1.0, 1.5)]
    others = [Sample("judge", True, "net", 1.0, 10.0, 9.0)] * 100
    rates._samples[("cpu", "float32", "1", "1")] = [*others, *own]
    found = rates.estimate("target", work, 10.0, vars(Profile()))
    assert found is not None
    assert found.seconds == pytest.approx(math.sqrt(1.5))


@pytest.mark.parametrize(("size", "is_known"), [(1.0, True), (4.0, True), (1e6, False)])
def test_a_network_of_another_size_widens_the_interval_until_it_says_nothing(
    size: float, is_known: bool
) -> None:
    rates = Rates([], {})
    rates._samples[("cpu", "float32", "1", "1")] = [sample(10.0, 1.0)] * 4
    work = Work("net", size, lambda sizes: 10.0, trained=1.0)
    found = rates.estimate("target", work, 10.0 * size, vars(Profile()))
    assert (found is not None) == is_known
    if found is not None:
        assert found.seconds == pytest.approx(size)
        assert found.high / found.low > 1.3 * size**0.2


def test_another_stage_that_trains_the_same_network_serves_and_others_do_not() -> None:
    rates = Rates([], {})
    rates._samples[("cpu", "float32", "1", "1")] = [sample(10.0, 1.0)] * 4
    trained = Work("net", 1.0, lambda sizes: 10.0, trained=1.0)
    passes = Work("net", 1.0, lambda sizes: 10.0)
    assert rates.estimate("judge", trained, 10.0, vars(Profile())) is not None
    assert rates.estimate("victims", passes, 10.0, vars(Profile())) is None


def test_what_is_not_known_of_a_network_compares_it_with_itself_or_with_nothing() -> None:
    key, profile = ("cpu", "float32", "1", "1"), vars(Profile())
    rates = Rates([], {})
    rates._samples[key] = [sample(10.0, 1.0)] * 4
    program = Work("program", 1.0, lambda sizes: 10.0, unknown="size")
    assert rates.estimate("target", program, 10.0, profile) is None  # a sized network says nothing of it
    rates._samples[key] = [Sample("target", False, "program", 1.0, 10.0, 1.0, is_sized=False)] * 4
    rates._known.clear()
    found = rates.estimate("target", program, 20.0, profile)
    assert found is not None
    assert found.seconds == pytest.approx(2.0)
    assert rates.estimate("target", Work("net", 1.0, lambda sizes: 10.0), 10.0, profile) is None
    service = Work("program", 1.0, lambda sizes: 10.0, unknown="time")
    assert rates.estimate("target", service, 10.0, profile) is None


def artifact(changes: dict[str, Any], cost: dict[str, float]) -> Artifact:
    stage = tiny.stages(tiny.spec())["target"]
    return Artifact(
        stage.key, "target", 3, dict(stage.specs), cost=cost, profile={**stage.profile, **changes}
    )


@pytest.mark.parametrize(
    ("changes", "cost", "seconds"),
    [
        ({}, {"cpu_seconds": 4.0, "wall_seconds": 9.0, "images_seen": 100.0}, 4.0),
        ({"device": "cuda"}, {"cpu_seconds": 4.0, "wall_seconds": 9.0, "images_seen": 100.0}, 9.0),
        ({}, {"cpu_seconds": LEAST_SECONDS / 2, "images_seen": 100.0}, LEAST_SECONDS),
        ({}, {}, None),
    ],
)
def test_a_stage_counts_by_its_processor_or_its_accelerator(
    changes: dict[str, Any], cost: dict[str, float], seconds: float | None
) -> None:
    made = artifact(changes, cost)
    rates = Rates([(made, NO_SIZES)], {})
    found = [one.seconds for samples in rates._samples.values() for one in samples]
    assert found == ([] if seconds is None else [seconds])

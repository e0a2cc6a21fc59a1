"""Bounds: the metrics that stand beside those of an attack."""

import pytest

from orchestrator.metrics.bounds import RECOGNISER_TOP1, accepted, bound_of
from orchestrator.metrics.names import BOUNDS, CLASS, PARTS, MetricName


@pytest.mark.parametrize("part", [*PARTS, CLASS])
@pytest.mark.parametrize("bound", BOUNDS)
def test_each_bound_has_the_unit_of_the_metric_beside_it(part: str, bound: str) -> None:
    for own, beside in bound_of(part, bound).items():
        one, other = MetricName.parse(own), MetricName.parse(beside)
        assert one.part == part
        assert one.metric.is_share == other.metric.is_share
    assert (RECOGNISER_TOP1 in bound_of(part, bound).values()) == (bound == "ceiling")
    assert bound_of(part, bound)[str(accepted(part))].endswith(
        {CLASS: "accepted"}.get(part, f"accepted_{part}")
    )


def test_what_the_judge_accepts() -> None:
    assert str(accepted(CLASS)) == "class/judge_top1"
    assert str(accepted("train", 5)) == "attack/accuracy_top5_train"

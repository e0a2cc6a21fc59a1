"""Values by image: of which stage, and what a trial may not have kept."""

from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.report.per_image import PerImage
from orchestrator.store.artifacts import Artifacts
from tests.report.test_delta import UTILITY, with_classes
from tests.report.trials import record


def test_values_are_those_of_the_attacked_target_and_each_file_is_read_once() -> None:
    blobs = MemoryBlobs("memory")
    store = Artifacts(blobs)
    first = with_classes(store, 0, {}, [1], [1.0])
    second = with_classes(store, 1, {}, [1], [0.25], "snapshot")
    both = record(2, {}, stage_keys={**first.stage_keys, **second.stage_keys})
    images = PerImage(store)
    rows = images.of(both, UTILITY)
    assert rows is not None
    assert rows["accuracy"].mean() == 0.25
    assert images.of(both, UTILITY) is rows
    assert images.of(both, "attack/accuracy_top5_test") is None  # the file has no such field
    assert images.of(both, "class/judge_top1") is None  # no such file
    assert images.of(record(3, {}), UTILITY) is None

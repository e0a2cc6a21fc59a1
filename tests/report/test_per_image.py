"""Values by image: of which stage, and what a trial may not have kept."""

import io
from dataclasses import replace
from typing import Any

import numpy as np

from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.datasets.classes import class_order
from orchestrator.report.per_image import PerImage
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.sweep.records import DatasetInput
from tests.report.test_delta import LEAKAGE, UTILITY, with_classes
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


def test_labels_are_named_by_the_class_of_the_data_set() -> None:
    store = Artifacts(MemoryBlobs("memory"))
    one = with_classes(store, 0, {}, [1, 0.5, 0.25], [1.0])
    plain = PerImage(store).by_class(one, LEAKAGE)
    assert plain is not None
    assert (plain.identities.tolist(), plain.values.tolist()) == ([0, 1, 2], [1, 0.5, 0.25])
    private = DatasetInput("faces", "digest", "here", "private", 50, 5)
    order = class_order(5, 3)[:3]
    images = PerImage(store)
    known = images.by_class(replace(one, params={"data.class_seed": 3}, datasets=[private]), LEAKAGE)
    assert known is not None
    assert known.identities.tolist() == sorted(order)
    assert known.values.tolist() == [[1, 0.5, 0.25][place] for place in np.argsort(order)]
    cases: list[tuple[Any, list[int], list[float]]] = [
        ("staged", [0, 1, 2], [1, 0.5, 0.25]),
        ([4, 0, 2], [0, 2, 4], [0.5, 0.25, 1]),
    ]
    for written, classes, values in cases:
        in_order = replace(one, params={"data.class_order": written}, datasets=[private])
        found = images.by_class(in_order, LEAKAGE)
        assert found is not None
        assert (found.identities.tolist(), found.values.tolist()) == (classes, values)
    other = replace(one, datasets=[replace(private, digest="another")])
    elsewhere = images.by_class(other, LEAKAGE)
    assert elsewhere is not None
    assert not set(known.identities) & set(elsewhere.identities)
    assert images.by_class(record(3, {}), LEAKAGE) is None


def test_images_without_a_value_are_left_out_of_their_class() -> None:
    store, buffer = Artifacts(MemoryBlobs("memory")), io.BytesIO()
    rows = [(0, 1.0), (0, np.nan), (1, np.nan), (2, 0.25)]
    np.save(buffer, np.array(rows, dtype=[("label", np.int32), ("retrieval_top1", np.float32)]))
    store.publish(Artifact("rr", "retrieval", 1, {}), {"per_image_test.npy": buffer.getvalue()})
    one = record(0, {}, stage_keys={"retrieval": "rr"})
    known = PerImage(store).by_class(one, "attack/retrieval_top1_test")
    assert known is not None
    assert (known.identities.tolist(), known.values.tolist()) == ([0, 2], [1, 0.25])

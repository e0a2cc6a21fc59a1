"""Kept results: computed once for equal content, the least used leave first, and stages leave equal bytes."""

from pathlib import Path

import torch
from torch import nn

from orchestrator.stages import kept as module
from orchestrator.stages.kept import Kept, kept, num_bytes
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from tests import tiny


def test_the_least_recently_used_leave_first() -> None:
    results, computed = Kept(most_bytes=8), []

    def value(number: int, size: int = 1) -> torch.Tensor:
        def compute() -> torch.Tensor:
            computed.append(number)
            return torch.full((size,), float(number))

        return results.get(number, compute)

    assert [float(value(number)) for number in (1, 2, 1, 3)] == [1, 2, 1, 3]  # 4 bytes each: 2 has left
    assert computed == [1, 2, 3]
    assert value(1).item() == 1
    assert computed == [1, 2, 3]
    value(2)
    assert computed == [1, 2, 3, 2]
    value(4, size=3)  # larger than all that may be kept
    value(4, size=3)
    value(2)
    assert computed == [1, 2, 3, 2, 4, 4]


def test_other_content_settings_and_threads_are_other_results() -> None:
    made = []

    def compute() -> torch.Tensor:
        made.append(0)
        return torch.zeros(1)

    scores = torch.tensor([[0.25, 0.75]])
    cases: list[tuple[list[bytes | torch.Tensor], str]] = [
        ([b"weights"], "a"),
        ([b"Weights"], "a"),
        ([b"weights"], "b"),
        ([b"weights", scores], "a"),
        ([b"weights", scores + 1], "a"),
    ]
    for files, settings in cases:
        for _ in range(2):
            kept("test", files, settings, compute)
    assert len(made) == 5
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        kept("test", [b"weights"], "a", compute)
    finally:
        torch.set_num_threads(threads)
    assert len(made) == 6


def test_memory_is_that_of_states_and_tensors() -> None:
    norm = nn.BatchNorm2d(4)  # weight, bias, running mean and variance, and a counter of 8 bytes
    assert num_bytes(norm) == 4 * 4 * 4 + 8
    assert num_bytes((torch.zeros(3), torch.zeros(2, dtype=torch.int64))) == 12 + 16


def test_stages_leave_the_same_bytes_with_and_without_kept_results(tmp_path: Path) -> None:
    """The second trial of the first store finds the judge, photographs and images of the first."""
    spec, other = tiny.spec(), tiny.spec({"release.truncation": 1})

    def left(folder: Path, *, forgets: bool) -> dict[str, dict[str, str]]:
        for trial in (spec, other):
            if forgets:
                module._KEPT = Kept()
            tiny.run(trial, folder)
        store, files = Artifacts(DirectoryBlobs(folder)), {}
        for stage in ("reconstructions", "retrieval", "evaluation"):
            artifact = store.find(tiny.stages(other)[stage].key)
            assert artifact is not None
            files[stage] = {name: file.sha256 for name, file in artifact.files.items()}
        return files

    assert left(tmp_path / "kept", forgets=False) == left(tmp_path / "forgotten", forgets=True)

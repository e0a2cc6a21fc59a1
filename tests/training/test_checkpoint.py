"""Checkpoints: what was packed comes back bit for bit; a damaged file counts as none."""

import logging

import pytest
import torch

from orchestrator.training.checkpoint import pack, unpack

TENSORS = {"weight": torch.tensor([[1.0, -2.5]]), "steps": torch.tensor(7), "empty": torch.zeros(0, 3)}
COUNTERS = {"epoch": 3, "best": 0.25, "curve": [[1, 0.5], [2, 0.25]]}


class Memory:
    """A checkpoint in this process."""

    def __init__(self, data: bytes | None = None) -> None:
        self.data = data

    def load(self) -> bytes | None:
        return self.data

    def save(self, data: bytes) -> None:
        self.data = data


def test_tensors_and_counters_come_back() -> None:
    unpacked = unpack(Memory(pack(TENSORS, COUNTERS)))
    assert unpacked is not None
    tensors, counters = unpacked
    assert counters == COUNTERS
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], tensor)
        assert tensors[name].dtype == tensor.dtype


def test_no_checkpoint_and_an_empty_one_are_none() -> None:
    assert unpack(None) is None
    assert unpack(Memory()) is None


@pytest.mark.parametrize("damage", ["flipped bit", "cut", "garbage", "other counters' digest"])
def test_a_damaged_checkpoint_is_logged_and_counts_as_none(
    damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = pack(TENSORS, COUNTERS)
    data = {
        "flipped bit": whole[:-1] + bytes([whole[-1] ^ 1]),
        "cut": whole[:-4],
        "garbage": b"\0" * 64,
        "other counters' digest": whole.replace(b'"sha256":"', b'"sha256":"x', 1),
    }[damage]
    with caplog.at_level(logging.WARNING):
        assert unpack(Memory(data)) is None
    assert "event=checkpoint_damaged" in caplog.text

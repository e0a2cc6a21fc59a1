"""Checkpoints: what was saved comes back bit for bit; one that is damaged or another stage's is none."""

import logging
from collections.abc import Iterator

import pytest
import torch

from orchestrator.training.checkpoint import load_state, save_state

TENSORS = {"weight": torch.tensor([[1.0, -2.5]]), "steps": torch.tensor(7), "empty": torch.zeros(0, 3)}
COUNTERS = {"epoch": 3, "best": 0.25, "curve": [[1, 0.5], [2, 0.25]]}
OURS, NEIGHBOURS = "a" * 64, "b" * 64


class Memory:
    """A checkpoint in this process."""

    def __init__(self, data: bytes | None = None, key: str = OURS) -> None:
        self.data, self.key = data, key

    def load(self) -> bytes | None:
        return self.data

    def save(self, data: bytes) -> None:
        self.data = data


def saved(key: str = OURS) -> bytes:
    """Return the bytes of the state above as a stage saves it."""
    memory = Memory(key=key)
    save_state(memory, TENSORS, COUNTERS)
    assert memory.data is not None
    return memory.data


def test_tensors_and_counters_come_back() -> None:
    loaded = load_state(Memory(saved()))
    assert loaded is not None
    tensors, counters = loaded
    assert counters == COUNTERS
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], tensor)
        assert tensors[name].dtype == tensor.dtype


def test_no_checkpoint_and_an_empty_one_are_none() -> None:
    assert load_state(None) is None
    assert load_state(Memory()) is None


def flipped() -> Iterator[bytes]:
    """Yield the saved bytes with each of their bits flipped by itself."""
    whole = saved()
    for place in range(len(whole)):
        for bit in range(8):
            yield whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]


def test_no_flipped_bit_of_length_header_counters_or_tensors_is_taken() -> None:
    taken = [number for number, data in enumerate(flipped()) if load_state(Memory(data)) is not None]
    assert taken == []


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 64, saved()[:-4], saved() + b"\0", saved().replace(b'"sha256":"', b'"sha256":"x', 1)],
    ids=["empty", "garbage", "cut", "longer", "no digest"],
)
def test_a_damaged_checkpoint_is_logged_and_counts_as_none(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert load_state(Memory(data)) is None
    reason = "its bytes differ from its digest"
    assert f'event=checkpoint_dropped key={OURS} reason="{reason}" action=start_over' in caplog.text


def test_the_checkpoint_of_another_stage_is_logged_and_counts_as_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert load_state(Memory(saved(NEIGHBOURS))) is None
    assert f'reason="it belongs to stage {NEIGHBOURS}"' in caplog.text

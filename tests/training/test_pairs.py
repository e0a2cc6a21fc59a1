"""Pairs: the seeded split, and batches on the device."""

import torch

from orchestrator.training.pairs import Pairs, hold_out


def test_held_out_pairs_are_seeded_disjoint_and_never_none() -> None:
    kept, held = hold_out(10, 0.3, 4)
    assert (len(kept), len(held)) == (7, 3)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(10))
    assert torch.equal(hold_out(10, 0.3, 4)[1], held)
    assert not torch.equal(hold_out(10, 0.3, 5)[1], held)
    assert len(hold_out(10, 0.001, 4)[1]) == 1


def test_the_split_is_the_one_that_stored_targets_were_trained_with() -> None:
    """Golden: `stages/io` recomputes it for artifacts of earlier versions."""
    assert hold_out(10, 0.3, 4)[1].tolist() == [9, 4, 7]


def test_a_batch_is_gathered_and_scaled_and_labels_stay_integers() -> None:
    images = torch.arange(0, 256, 51, dtype=torch.uint8)[:, None]
    pairs = Pairs(images, torch.arange(6))
    inputs, outputs = pairs.batch(torch.tensor([5, 0]), torch.device("cpu"))
    assert torch.equal(inputs, torch.tensor([[1.0], [0.0]]))
    assert outputs.tolist() == [5, 0]
    assert outputs.dtype == torch.int64
    part = pairs.at(torch.tensor([5, 2, 0])).at(torch.tensor([1]))
    assert torch.equal(part.batch(torch.tensor([0]), torch.device("cpu"))[0], torch.tensor([[102 / 255]]))
    assert (len(pairs), len(part)) == (6, 1)
    assert part.inputs is images

"""The encoder of released scores, by hand and in double precision, and what passes its gradients."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from orchestrator import config
from orchestrator.attacks.encoder import encode
from orchestrator.config.attacks import Encoding, ZeroPolicy
from orchestrator.threat import released, truncate

PAPER = torch.tensor([[0.6, 0.05, 0.06, 0.2, 0.09]])
TRUNCATED = torch.tensor([[0.6, 0, 0, 0.2, 0]])
LOG6, LOG2, LOG_FLOOR = math.log(0.6), math.log(0.2), math.log(1e-6)
ENCODINGS: tuple[Encoding, ...] = ("log", "logit", "log-ratio")
POLICIES: tuple[ZeroPolicy, ...] = ("zero-after-log", "log-clamp", "floor")


@pytest.mark.parametrize(
    ("policy", "m", "offset", "expected"),
    [
        ("zero-after-log", 2, 50.0, [LOG6 + 50, 0, 0, LOG2 + 50, 0]),
        ("zero-after-log", 5, 50.0, [LOG6 + 50, 0, 0, LOG2 + 50, 0]),  # a zero score is never a kept one
        ("zero-after-log", 1, 50.0, [LOG6 + 50, 0, 0, 0, 0]),
        ("zero-after-log", 2, 1.0, [LOG6 - LOG2, 0, 0, 0, 0]),  # log 0.2 + 1 < 0, so the row is shifted
        ("log-clamp", 5, 50.0, [LOG6 + 1000, 0, 0, LOG2 + 1000, 0]),  # 50 - 1000, then 950 for everyone
        ("log-clamp", 2, 50.0, [LOG6 + 1000, 0, 0, LOG2 + 1000, 0]),
        ("floor", 2, 50.0, [LOG6 + 50, *[LOG_FLOOR + 50] * 2, LOG2 + 50, LOG_FLOOR + 50]),
        ("floor", 2, 1.0, [LOG6 + 1, *[LOG_FLOOR + 1] * 2, LOG2 + 1, LOG_FLOOR + 1]),
    ],
)
def test_encoding_by_hand(policy: ZeroPolicy, m: int, offset: float, expected: list[float]) -> None:
    torch.testing.assert_close(encode(TRUNCATED, m, offset, policy), torch.tensor([expected]))


ODDS6, ODDS2, ODDS_FLOOR = math.log(0.6 / 0.4), math.log(0.2 / 0.8), math.log(1e-6 / (1 - 1e-6))
HALF = math.log(0.6 / 0.2) / 2  # of two kept scores each is this far from the mean of both
CLAMPED = (LOG6 + LOG2 - 3000) / 5
FLOORED = (LOG6 + LOG2 + 3 * LOG_FLOOR) / 5


@pytest.mark.parametrize(
    ("encoding", "policy", "m", "expected"),
    [
        ("logit", "zero-after-log", 2, [ODDS6 + 1, 0, 0, ODDS2 + 1, 0]),  # below 0 and not shifted
        ("logit", "zero-after-log", 1, [ODDS6 + 1, 0, 0, 0, 0]),
        ("logit", "log-clamp", 2, [ODDS6 + 1, -999, -999, ODDS2 + 1, -999]),
        ("logit", "floor", 2, [ODDS6 + 1, *[ODDS_FLOOR + 1] * 2, ODDS2 + 1, ODDS_FLOOR + 1]),
        ("log-ratio", "zero-after-log", 2, [1 + HALF, 0, 0, 1 - HALF, 0]),
        ("log-ratio", "zero-after-log", 1, [1.0, 0, 0, 0, 0]),  # the class alone
        ("log-ratio", "log-clamp", 2, [1 + p - CLAMPED for p in (LOG6, -1000, -1000, LOG2, -1000)]),
        ("log-ratio", "floor", 2, [1 + p - FLOORED for p in (LOG6, LOG_FLOOR, LOG_FLOOR, LOG2, LOG_FLOOR)]),
    ],
)
def test_our_encodings_by_hand(encoding: Encoding, policy: ZeroPolicy, m: int, expected: list[float]) -> None:
    z = encode(TRUNCATED, m, 1.0, policy, encoding=encoding)
    torch.testing.assert_close(z, torch.tensor([expected]), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("spread", [1.0, 5.0, 20.0])
def test_full_vectors_are_encoded_as_in_double_precision(spread: float) -> None:
    """The formulas again, in NumPy's double precision, of the float32 scores that are released."""
    logits = spread * torch.randn(200, 10, generator=torch.Generator().manual_seed(0))
    scores = logits.softmax(1)
    p = scores.double().numpy()
    p = np.where(p > 0, p, 1.0)
    logs = np.where(scores > 0, np.log(p), np.nan)
    rest = np.maximum(1 - p, 2.0**-25)
    low = np.nanmin(logs + 3.0, axis=1, keepdims=True)
    expected = {
        "log": logs + 3.0 + np.maximum(0.0, -low),
        "logit": logs - np.log(rest) + 3.0,
        "log-ratio": logs - np.nanmean(logs, axis=1, keepdims=True) + 3.0,
    }
    for encoding in ENCODINGS:
        z = encode(scores, 10, 3.0, "zero-after-log", encoding=encoding)
        wanted = torch.from_numpy(np.nan_to_num(expected[encoding], nan=0.0)).float()
        torch.testing.assert_close(z, wanted, rtol=1e-4, atol=1e-4)


def test_log_ratios_of_a_full_release_are_logits_without_their_mean() -> None:
    logits = 3 * torch.randn(50, 10, generator=torch.Generator().manual_seed(1)) + 7
    z = encode(logits.softmax(1), 10, 0.0, "zero-after-log", encoding="log-ratio")
    torch.testing.assert_close(z, logits - logits.mean(1, keepdim=True), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("encoding", "is_same"), [("log", False), ("logit", False), ("log-ratio", True)])
def test_a_hidden_sum_enters_all_but_log_ratios(encoding: Encoding, is_same: bool) -> None:
    kept, whole = (
        encode(
            released(PAPER, config.Release(truncation=3, renormalised=on)),
            3,
            9.0,
            "zero-after-log",
            encoding=encoding,
        )
        for on in (False, True)
    )
    assert torch.allclose(kept, whole, atol=1e-5) is is_same


def test_logits_tell_sure_scores_apart_and_end_at_the_rounding_of_float32() -> None:
    scores = torch.tensor([[1 - 1e-2], [1 - 1e-4], [1 - 2.0**-24], [1.0]])
    z = encode(scores, 1, 0.0, "zero-after-log", encoding="logit").flatten()
    assert z.diff().min() > 0.69
    torch.testing.assert_close(z[2:], torch.tensor([24 * math.log(2), 25 * math.log(2)]))
    assert encode(scores, 1, 50.0, "zero-after-log").flatten().diff().max() < 0.01


@pytest.mark.parametrize(("offset", "is_there"), [(0.0, False), (math.log(5), True), (50.0, True)])
def test_a_single_score_needs_a_constant_above_0(offset: float, is_there: bool) -> None:
    """With c = 0 the shift takes the whole row to 0: neither the score nor its class is left."""
    z = encode(PAPER, 1, offset, "zero-after-log")
    assert bool(z.any()) is is_there


def test_zeros_through_the_logarithm_saturate_the_inverter() -> None:
    """The trap: the same truncated vector is ordinary under one policy and near 1000 under the other."""
    trap = encode(TRUNCATED, 5, 50.0, "log-clamp")[0].round(decimals=1)
    torch.testing.assert_close(trap, torch.tensor([999.5, 0, 0, 998.4, 0]))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("policy", ["zero-after-log", "log-clamp"])
def test_a_full_vector_needs_no_zero_policy(policy: ZeroPolicy, encoding: Encoding) -> None:
    plain = encode(PAPER, 5, 50.0, "zero-after-log", encoding=encoding)
    torch.testing.assert_close(encode(PAPER, 5, 50.0, policy, encoding=encoding), plain)
    if encoding == "log":
        torch.testing.assert_close(plain, PAPER.log() + 50)


def test_a_one_hot_vector_maps_to_exactly_the_offset() -> None:
    one_hot = torch.eye(5)
    assert torch.equal(encode(one_hot, 1, 50.0, "zero-after-log"), 50 * one_hot)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_full_vector_is_cut_to_m(encoding: Encoding) -> None:
    full, cut = (
        encode(scores, 2, 50.0, "zero-after-log", encoding=encoding) for scores in (PAPER, truncate(PAPER, 2))
    )
    torch.testing.assert_close(full, cut)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_scores_rounded_away_leave_an_empty_row(encoding: Encoding) -> None:
    z = encode(torch.zeros(2, 5), 5, 50.0, "zero-after-log", encoding=encoding)
    assert torch.equal(z, torch.zeros(2, 5))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "release",
    [{"labels_only": True}, {"decimals": 1}, {"decimals": 7}, {"truncation": 1}, {"truncation": 3}, {}],
    ids=str,
)
def test_every_release_has_finite_values(release: dict, policy: ZeroPolicy, encoding: Encoding) -> None:
    logits = 40 * torch.randn(100, 5, generator=torch.Generator().manual_seed(2))
    scores = released(logits.softmax(1), config.Release(**release))
    m = 1 if release.get("labels_only") else release.get("truncation", 5)
    assert scores.max() == 1  # some are sure
    assert encode(scores, m, 2.0, policy, encoding=encoding).isfinite().all()


SLOPES: dict[Encoding, list[float]] = {
    "log": [1 / 0.6, 0, 0, 4 / 0.2, 0],
    "logit": [1 / (0.6 * 0.4), 0, 0, 4 / (0.2 * 0.8), 0],
    "log-ratio": [(1 - 2.5) / 0.6, 0, 0, (4 - 2.5) / 0.2, 0],  # 2.5: the mean of both weights
}
"""Encoding -> slopes of z_1 + 4 z_4 by each score."""


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_kept_scores_and_the_offset_pass_gradients_and_dropped_ones_none(encoding: Encoding) -> None:
    scores = TRUNCATED.clone().requires_grad_()
    offset = torch.tensor(50.0, requires_grad=True)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    (encode(scores, 2, offset, "zero-after-log", encoding=encoding) * weights).sum().backward()
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad, torch.tensor([SLOPES[encoding]]), rtol=1e-5, atol=1e-6)
    assert offset.grad == 5.0


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("policy", POLICIES)
def test_gradients_are_finite_at_zero_and_one(policy: ZeroPolicy, encoding: Encoding) -> None:
    scores = torch.tensor([[1.0, 0, 0, 1e-40, 0]], requires_grad=True)
    encode(scores, 3, 50.0, policy, encoding=encoding).square().sum().backward()
    assert scores.grad is not None
    assert scores.grad[0, [0, 1, 2, 4]].isfinite().all()
    assert scores.grad[0, [1, 2, 4]].tolist() == [0, 0, 0]


def test_a_shift_takes_the_offset_out() -> None:
    offset = torch.tensor(1.0, requires_grad=True)
    z = encode(TRUNCATED, 2, offset, "zero-after-log")
    z.sum().backward()
    assert offset.grad == 0.0


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encoding_is_float32_whatever_comes_in(encoding: Encoding) -> None:
    z: Tensor = encode(TRUNCATED.double(), 2, 50.0, "zero-after-log", encoding=encoding)
    assert z.dtype == torch.float32

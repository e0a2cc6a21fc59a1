"""Encoder: released scores as the input z of an inverter (AMI, Yang et al. 2019, section IV, and its code).

z_i = f_i + c for the encoded scores p_i of a row, 0 for the others. S are the encoded positions of the row:

    log        f_i = log p_i, as printed; as released, the row is then shifted so that its least z_i is not
               below 0
    logit      f_i = log p_i - log max(1 - p_i, 2^-25), ours: a top score of 0.99 and one of 0.9999 are as far
               apart as 0.01 and 0.0001 are
    log-ratio  f_i = log p_i - mean of log p_j over S, ours: the centred log-ratio (Aitchison 1986)

A full release's log-ratios are F's logits up to their mean. A sum that the service hides does not enter
them, and no entry is constant; of ratios to the top score the top one is, and alone it says nothing. But a
single log-ratio is 0 too, so at m = 1 this encoding passes the label alone. float32 has no score between
1 - 2^-24 and 1: a p that is released as 1 may have been 1 - 2^-25, and counts as that.
"""

import math

import torch
from torch import Tensor

from orchestrator.config.attacks import Encoding, ZeroPolicy
from orchestrator.threat import largest

LOG_OF_ZERO = -1000.0  # released code
FLOOR = 1e-6  # ours: below any score that is released with six decimals
LEAST_REST = 2.0**-25  # of 1 - p: what float32 rounds off next to 1


def encode(
    released: Tensor,
    m: int,
    offset: float | Tensor,
    zero_policy: ZeroPolicy,
    log_floor: float = LOG_OF_ZERO,
    encoding: Encoding = "log",
) -> Tensor:
    """Encode released scores (N, k) of truncation m as z, float32 (N, k); see `encode_logs`."""
    scores = released.float()
    positive = scores > 0
    # Selecting before the logarithm as well keeps the infinite slope at 0 out of the gradient.
    logs = torch.where(positive, scores, 1.0).log()
    return encode_logs(logs, positive & largest(scores, m), offset, zero_policy, log_floor, encoding)


def encode_logs(
    logs: Tensor,
    kept: Tensor,
    offset: float | Tensor,
    zero_policy: ZeroPolicy,
    log_floor: float,
    encoding: Encoding = "log",
) -> Tensor:
    """Encode logarithms of scores (N, k), of which `kept` (N, k) were released, as z, float32 (N, k).

    `zero-after-log`: kept entries are encoded, everything else is exactly 0. `log-clamp`: all k entries are
    encoded, log 0 being `log_floor`, which the shift of `log` then spreads over the row. `floor`: all k are
    encoded, as scores of at least 1e-6, and no encoding shifts. Positions are constants; kept scores and the
    offset pass gradients, which are finite for scores of 0 and 1.
    """
    lowest = math.log(FLOOR) if zero_policy == "floor" else log_floor
    logs = torch.where(kept, logs.clamp(min=lowest), lowest)
    encoded = kept if zero_policy == "zero-after-log" else torch.ones_like(kept)
    values = _encoded(logs, encoded, encoding) + offset
    if encoding == "log" and zero_policy != "floor":
        smallest = torch.where(encoded, values, torch.inf).amin(dim=1, keepdim=True)
        values = values + (-smallest).clamp(min=0.0)
    return torch.where(encoded, values, 0.0)


def _encoded(logs: Tensor, encoded: Tensor, encoding: Encoding) -> Tensor:
    """Return f of the module's header, (N, k), of logarithms (N, k) at the positions `encoded` (N, k)."""
    if encoding == "logit":
        return logs - (-logs.expm1()).clamp(min=LEAST_REST).log()
    if encoding == "log-ratio":
        total = torch.where(encoded, logs, 0.0).sum(dim=1, keepdim=True)
        return logs - total / encoded.sum(dim=1, keepdim=True).clamp(min=1)
    return logs

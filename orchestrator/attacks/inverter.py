"""Inverter attack of AMI: an encoder of released scores before an inverter G (Yang et al. 2019, section IV).

z = log(scores) + c, then a shift per sample that makes the smallest kept value at least 0, as in the released
code; a reconstruction is one forward pass. G minimises the per-pixel mean squared error on the adversary's
own images.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from orchestrator import config
from orchestrator.models.build import build_inverter
from orchestrator.threat import largest

ZeroPolicy = Literal["zero-after-log", "log-clamp", "floor"]

LOG_OF_ZERO = -1000.0  # released code
FLOOR = 1e-6  # ours: below any score that is released with six decimals


def encode(
    released: Tensor, m: int, offset: float | Tensor, zero_policy: ZeroPolicy, log_floor: float = LOG_OF_ZERO
) -> Tensor:
    """Encode released scores (N, k) of truncation m as z, float32 (N, k); see `encode_logs`."""
    scores = released.float()
    positive = scores > 0
    # Selecting before the logarithm as well keeps the infinite slope at 0 out of the gradient.
    logs = torch.where(positive, scores, 1.0).log()
    return encode_logs(logs, positive & largest(scores, m), offset, zero_policy, log_floor)


def encode_logs(
    logs: Tensor, kept: Tensor, offset: float | Tensor, zero_policy: ZeroPolicy, log_floor: float
) -> Tensor:
    """Encode logarithms of scores (N, k), of which `kept` (N, k) were released, as z, float32 (N, k).

    `zero-after-log`: kept entries are encoded, everything else is exactly 0. `log-clamp`: all k entries are
    encoded, log 0 being `log_floor`, which the shift then spreads over the row. `floor`: log max(p, 1e-6) +
    c, no shift. Positions are constants; kept scores and the offset pass gradients.
    """
    lowest = math.log(FLOOR) if zero_policy == "floor" else log_floor
    values = torch.where(kept, logs.clamp(min=lowest), lowest) + offset
    if zero_policy == "floor":
        return values
    encoded = torch.ones_like(kept) if zero_policy == "log-clamp" else kept
    smallest = torch.where(encoded, values, torch.inf).amin(dim=1, keepdim=True)
    return torch.where(encoded, values + (-smallest).clamp(min=0.0), 0.0)


class Inverter(nn.Module):
    """Encoder and network: released scores (N, k) and their truncation m -> images (N, C, S, S) in [0, 1].

    m belongs to the scores, not to the inverter: the TB baseline is trained on full scores (m = k) and given
    truncated ones. While `offset_learnable` is False, `encode` depends on no parameter, so z may be computed
    once.
    """

    offset: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        offset: float,
        offset_learnable: bool,
        zero_policy: ZeroPolicy,
        log_floor: float = LOG_OF_ZERO,
    ) -> None:
        super().__init__()
        value = torch.tensor(float(offset))
        if offset_learnable:
            self.offset = nn.Parameter(value)
        else:
            self.register_buffer("offset", value)
        self.zero_policy: ZeroPolicy = zero_policy
        self.log_floor = log_floor
        self.network = network

    def encode(self, released: Tensor, m: int) -> Tensor:
        """Encode released scores (N, k) as z, float32 (N, k)."""
        return encode(released, m, self.offset, self.zero_policy, self.log_floor)

    def forward(self, released: Tensor, m: int) -> Tensor:
        """Reconstruct images (N, C, S, S) in [0, 1]."""
        return self.network(self.encode(released, m))


def build(
    attack: config.InverterAttack | config.JointAttack, *, classes: int, channels: int, image_size: int
) -> Inverter:
    """Build an untrained inverter; its first weights come from torch's global generator."""
    return Inverter(
        build_inverter(attack.model, classes=classes, channels=channels, image_size=image_size),
        offset=attack.offset,
        offset_learnable=attack.offset_learnable,
        zero_policy=attack.zero_policy,
        log_floor=attack.log_floor if isinstance(attack, config.JointAttack) else LOG_OF_ZERO,
    )

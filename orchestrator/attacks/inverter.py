"""Inverter attack of AMI: an encoder of released scores before an inverter G (Yang et al. 2019, section IV).

`encoder.py` has the encodings and the constant c; a reconstruction is one forward pass. G minimises the
per-pixel mean squared error on the adversary's own images.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from orchestrator import config
from orchestrator.attacks.encoder import LOG_OF_ZERO, encode
from orchestrator.config.attacks import Encoding, ZeroPolicy
from orchestrator.models.build import build_inverter


class Inverter(nn.Module):
    """Encoder and network: released scores (N, k) and their truncation m -> images (N, C, S, S) in [0, 1].

    m belongs to the scores, not to the inverter: the TB baseline is trained on full scores (m = k) and given
    truncated ones. While `offset_learnable` is False, `encode` depends on no parameter, so z may be computed
    once. An adversary who knows of some classes alone has inputs for these, `named`, (n,) int64;
    scores of others are passed over.
    """

    offset: Tensor
    named: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        *,
        offset: float,
        offset_learnable: bool,
        zero_policy: ZeroPolicy,
        log_floor: float = LOG_OF_ZERO,
        encoding: Encoding = "log",
        named: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("named", named)
        value = torch.tensor(float(offset))
        if offset_learnable:
            self.offset = nn.Parameter(value)
        else:
            self.register_buffer("offset", value)
        self.zero_policy: ZeroPolicy = zero_policy
        self.log_floor = log_floor
        self.encoding: Encoding = encoding
        self.network = network

    def encode(self, released: Tensor, m: int) -> Tensor:
        """Encode released scores (N, k) as z, float32 (N, k), or (N, n) of n named classes."""
        if self.named is not None:
            released, m = released[:, self.named], min(m, len(self.named))
        return encode(released, m, self.offset, self.zero_policy, self.log_floor, self.encoding)

    def forward(self, released: Tensor, m: int) -> Tensor:
        """Reconstruct images (N, C, S, S) in [0, 1]."""
        return self.network(self.encode(released, m))


def build(
    attack: config.InverterAttack | config.JointAttack,
    *,
    classes: int,
    channels: int,
    image_size: int,
    named: Tensor | None = None,
) -> Inverter:
    """Build an untrained inverter of all classes, or of those `named`, (n,) int64; its first weights come
    from torch's global generator."""
    known = classes if named is None else len(named)
    return Inverter(
        build_inverter(attack.model, classes=known, channels=channels, image_size=image_size),
        offset=math.log(known) if attack.offset == "log-k" else attack.offset,
        offset_learnable=attack.offset_learnable,
        zero_policy=attack.zero_policy,
        log_floor=attack.log_floor if isinstance(attack, config.JointAttack) else LOG_OF_ZERO,
        encoding=attack.encoding,
        named=named,
    )


def own_rates(attack: config.InverterAttack | config.JointAttack) -> Mapping[str, float]:
    """Return the learning rate of a learnable c that has one of its own, by the parameter's name in a model
    that holds the inverter as `inverter`."""
    rate = attack.offset_learning_rate
    return {} if rate is None or not attack.offset_learnable else {"inverter.offset": rate}

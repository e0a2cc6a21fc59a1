"""Rates: how long stored stages took for the work that they did, and what that says of planned ones.

Samples are compared by stage, networks (architectures), size of a network, and numeric profile: device,
precision, workers and threads, which must be equal. Of several alike a fixed part and a part proportional to
the work are fitted. No torch.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from orchestrator.models.generator_outlines import Shapes
from orchestrator.stages.graph import STAGES
from orchestrator.stages.workload import Reader, Sizes, Work
from orchestrator.store.artifacts import Artifact

SAME_SIZE = 1.02
"""Factor between networks that count as one size."""

SPREAD = 3.0
"""Factor between the works of samples from which on a fixed part can be told from the rest."""

GROWTH = 0.25
"""Deviation of the logarithm of a rate for each e-fold of a network's size: small layers keep a processor
less busy."""

REACH = 0.02
"""The same for each e-fold of work beyond that of the samples."""

LOAD = 0.08
"""Deviation that samples share: how busy the machine was, and which it is."""

WIDEST = 5.0
"""Factor up and down beyond which a time counts as unknown."""

WITHIN, WEIGHT = 0.10, 3.0
"""Deviation of the logarithm of times of one kind, and the samples that this counts for."""

NORMAL = 1.645
"""95 % quantile of the normal distribution."""

QUANTILES = {1: 6.31, 2: 2.92, 3: 2.35, 4: 2.13, 5: 2.02, 6: 1.94, 8: 1.86, 10: 1.81, 15: 1.75, 30: 1.70}
"""Degrees of freedom -> 95 % quantile of Student's distribution, for intervals of 90 %."""

LEAST_SECONDS = 0.01
"""Shorter times are taken for this: they say nothing of a rate."""


@dataclass(frozen=True)
class Estimate:
    """Seconds that a stage is expected to take, with an interval of 90 %."""

    seconds: float
    low: float
    high: float


@dataclass(frozen=True)
class Sample:
    """A stored stage."""

    stage: str
    is_training: bool
    family: str
    each: float  # multiply-adds of an image
    total: float  # multiply-adds in all
    seconds: float
    is_sized: bool = True  # whether these are its multiply-adds, no placeholders


@dataclass(frozen=True)
class _Tier:
    """Samples that are alike in one way."""

    bias: float  # deviation of the logarithm of a time that all samples share
    same_stage: bool
    same_family: bool
    same_size: bool


TIERS = (
    _Tier(0.05, True, True, True),
    _Tier(0.15, False, True, True),
    _Tier(0.25, True, True, False),
    _Tier(0.30, False, True, False),
    _Tier(0.50, True, False, False),
)
"""Ways to be alike, the best first. Without the same stage both train a network."""


def profile_key(profile: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what must be equal for times to be compared."""
    return tuple(str(profile.get(name, "")) for name in ("device", "precision", "workers", "threads"))


def seconds_of(artifact: Artifact) -> float:
    """Return what a stage took: CPU seconds, or seconds of its accelerator."""
    on_cpu = artifact.profile.get("device", "cpu") == "cpu"
    return float(artifact.cost.get("cpu_seconds" if on_cpu else "wall_seconds", 0.0))


class Rates:
    """What stored stages took."""

    def __init__(
        self,
        artifacts: Iterable[tuple[Artifact, Sizes]],
        shapes: Mapping[str, Shapes],
        reader: Reader | None = None,
    ) -> None:
        """Learn from artifacts, each with the numbers of images of the sets that it was made of."""
        reader = reader or Reader()
        self._samples: dict[tuple[str, ...], list[Sample]] = {}
        self._known: dict[tuple[Any, ...], Estimate | None] = {}
        for artifact, sizes in artifacts:
            sample = _sample(artifact, sizes, shapes, reader)
            if sample is not None:
                self._samples.setdefault(profile_key(artifact.profile), []).append(sample)

    def estimate(self, stage: str, work: Work, total: float, profile: Mapping[str, Any]) -> Estimate | None:
        """Return what a stage of so many multiply-adds will take; None where nothing like it is stored."""
        if work.unknown == "time":
            return None
        key = profile_key(profile)
        same = (stage, work.family, round(work.each), round(total), key)
        if same not in self._known:
            self._known[same] = self._estimate(stage, work, total, self._samples.get(key, ()))
        return self._known[same]

    def _estimate(self, stage: str, work: Work, total: float, samples: Sequence[Sample]) -> Estimate | None:
        """Return the estimate by the samples of the first way to be alike that has some."""
        is_training = work.trained > 0
        for tier in TIERS:
            alike = [one for one in samples if _is_alike(one, tier, stage, work, is_training=is_training)]
            if alike:
                apart = min(abs(math.log(one.each / work.each)) for one in alike)
                near = [one for one in alike if abs(math.log(one.each / work.each)) < apart + math.log(1.5)]
                bias = math.hypot(tier.bias, GROWTH * apart, work.spread)
                found = _fitted(near, total, bias, has_fixed=tier.same_size)
                return found if found.high < WIDEST**2 * found.low else None
        return None


def _sample(artifact: Artifact, sizes: Sizes, shapes: Mapping[str, Shapes], reader: Reader) -> Sample | None:
    """Return what an artifact says; None for a stage or settings of another version, of no cost, and where it
    takes the numbers of images of a set that the plan has not."""
    seconds, kind = seconds_of(artifact), STAGES.get(artifact.stage)
    if kind is None or seconds <= 0:
        return None
    try:
        work = stage_work(kind.name, artifact.spec, artifact.spec.get("weights", {}), shapes, reader)
        total = work.total(artifact.cost.get("images_seen", 0.0), sizes)
    except (ValueError, AttributeError, KeyError):  # of another version, or of a set that is not here
        return None
    if work.unknown == "time":
        return None
    seconds, is_sized = max(seconds, LEAST_SECONDS), not work.unknown
    return Sample(kind.name, work.trained > 0, work.family, work.each, total, seconds, is_sized)


def stage_work(
    stage: str,
    specs: Mapping[str, Any],
    weights: Mapping[str, Any],
    shapes: Mapping[str, Shapes],
    reader: Reader,
) -> Work:
    """Return the work of a planned or stored stage; raise `ValueError` for settings that are none here.

    `weights`: role -> name of public weights, `shapes`: name -> tensors of those that are staged.
    """
    name = weights.get("prior", {}).get("name", "")
    kind = STAGES[stage]
    return kind.work(
        reader.specs({role: specs[role] for role in kind.reads if role in specs}), shapes.get(name)
    )


def _is_alike(one: Sample, tier: _Tier, stage: str, work: Work, *, is_training: bool) -> bool:
    return (
        (one.stage == stage if tier.same_stage else one.is_training and is_training)
        and (one.family == work.family if tier.same_family else one.is_sized and not work.unknown)
        and (not tier.same_size or abs(math.log(one.each / work.each)) < math.log(SAME_SIZE))
    )


def _fitted(samples: Sequence[Sample], total: float, bias: float, *, has_fixed: bool) -> Estimate:
    """Return an estimate from samples of about one kind.

    `bias`: deviation that all of them share; no number of samples makes it smaller.
    """
    fixed, rate = _line(samples) if has_fixed else (0.0, 0.0)
    if not rate:
        fixed, rate = 0.0, math.exp(mean(math.log(one.seconds / one.total) for one in samples))
    away = sum(math.log(one.seconds / (fixed + rate * one.total)) ** 2 for one in samples)
    works = [one.total for one in samples]
    beyond = max(0.0, math.log(total / max(works)), math.log(min(works) / total))
    free = WEIGHT + len(samples) - 1
    within = math.sqrt((WEIGHT * WITHIN**2 + away) / free * (1 + 1 / len(samples)))
    shared = math.hypot(LOAD, bias, REACH * beyond)
    factor = math.exp(math.hypot(_quantile(free) * within, NORMAL * shared))
    seconds = fixed + rate * total
    return Estimate(seconds, seconds / factor, seconds * factor)


def _line(samples: Sequence[Sample]) -> tuple[float, float]:
    """Return the fixed part and the rate of least relative squares, neither negative; no rate where the works
    are too much alike to tell both."""
    works = [one.total for one in samples]
    if max(works) < SPREAD * min(works):
        return 0.0, 0.0
    # seconds = fixed + rate * work, each equation divided by its seconds
    a, b = [1 / one.seconds for one in samples], [one.total / one.seconds for one in samples]
    aa, ab, bb = (sum(x * y for x, y in zip(*pair, strict=True)) for pair in ((a, a), (a, b), (b, b)))
    determinant = aa * bb - ab * ab
    if determinant <= 1e-9 * aa * bb:
        return 0.0, 0.0
    fixed = (sum(a) * bb - sum(b) * ab) / determinant
    rate = (sum(b) * aa - sum(a) * ab) / determinant
    if rate <= 0:
        return 0.0, 0.0
    return (fixed, rate) if fixed > 0 else (0.0, 0.0)


def _quantile(free: float) -> float:
    return QUANTILES[max(degree for degree in QUANTILES if degree <= free)]

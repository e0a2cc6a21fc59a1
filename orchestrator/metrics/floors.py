"""Floors of class inference: what each judge recognises of a class without an attack. No torch.

In squared error every image of a generative attack loses to a grey one, so images of classes are compared
by who recognises them. The floor of the trial's own judge is the largest of what it accepts of the image that
the attack starts from, of guesses without training, and of chance; further judges and the recogniser have
chance. All of it follows from a trial's metrics, so that no stage is computed again.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.metrics.names import CLASS, CLASS_GUESSES, METRICS

RECOGNISED = METRICS["judge_top1"].on(CLASS)
"""Share of classes whose image a judge recognises."""

CHANCE_NAME = "chance"
OVER_FLOOR = str(METRICS["over_floor"].on(CLASS))
CHANCE = "yardstick/chance"
RECOGNISER_CHANCE = "yardstick/recogniser_chance"
CLASSES = "yardstick/classes_inferred"
RECOGNISER = "recogniser"
LEVEL = 0.025  # one-sided, of a share above its floor: the lower end of a 95 % interval


@dataclass(frozen=True)
class Recognition:
    """Metrics of one judge: the share of classes that it recognises, and its floor."""

    judge: str
    """Name of a further judge or `recogniser`; empty for the trial's own."""

    share: str
    floor: str

    floor_name: str
    """`CHANCE_NAME`, start, or one of `CLASS_GUESSES`."""

    def over_floor(self, metrics: Mapping[str, float]) -> float:
        """Return the share beside its floor: 0 is the floor, 1 is all."""
        floor = metrics[self.floor]
        return (metrics[self.share] - floor) / (1.0 - floor) if floor < 1.0 else 0.0

    def is_above(self, metrics: Mapping[str, float]) -> bool:
        """Return whether one trial's share is above the floor, or as a number where classes were not counted.

        One-sided, a draw for each class however many images it has: by the binomial test against chance, by
        Fisher's exact test against a floor that is a share of the same classes, which varies as much.
        """
        share, floor, classes = metrics[self.share], metrics[self.floor], round(metrics.get(CLASSES, 0))
        if not classes:
            return share > floor
        hits = round(share * classes)
        if self.floor_name == CHANCE_NAME:
            return at_least(hits, classes, floor) < LEVEL
        return at_least_of_both(hits, round(floor * classes), classes) < LEVEL


def recognitions(metrics: Mapping[str, float]) -> list[Recognition]:
    """Return what each judge of a trial's metrics recognises of classes, its own judge first; a judge without
    a floor is left out."""
    by_recogniser = (RECOGNISER, str(METRICS["recogniser_top1"].on(CLASS)), {CHANCE_NAME: RECOGNISER_CHANCE})
    asked = [
        ("", str(RECOGNISED), {CHANCE_NAME: CHANCE, **_own_floors()}),
        *((name, str(RECOGNISED.of_judge(name)), {CHANCE_NAME: CHANCE}) for name in _further(metrics)),
        by_recogniser,
    ]
    found = []
    for judge, share, floors in asked:
        known = {name: metric for name, metric in floors.items() if metric in metrics}
        if share in metrics and known:
            highest = max(known, key=lambda name: metrics[known[name]])
            found.append(Recognition(judge, share, known[highest], highest))
    return found


def unrecognised(metrics: Mapping[str, float]) -> list[Recognition]:
    """Return the judges that recognise no more of one trial's classes than their floor."""
    return [one for one in recognitions(metrics) if not one.is_above(metrics)]


def floor_words(found: Sequence[Recognition]) -> list[str]:
    """Return floors as tables write them: `start (class)`, of another judge `chance (class by NAME)`."""
    return [f"{one.floor_name} ({CLASS}{f' by {one.judge}' if one.judge else ''})" for one in found]


def at_least(hits: int, draws: int, share: float) -> float:
    """Return the probability of so many hits or more among draws that each hit with probability `share`."""
    if hits <= 0 or share >= 1.0:
        return 1.0
    if share <= 0.0:
        return 0.0
    hit, miss, ways = math.log(share), math.log1p(-share), math.lgamma(draws + 1)
    logs = (
        ways - math.lgamma(n + 1) - math.lgamma(draws - n + 1) + n * hit + (draws - n) * miss
        for n in range(hits, draws + 1)
    )
    return min(1.0, math.fsum(map(math.exp, logs)))


def at_least_of_both(hits: int, others: int, draws: int) -> float:
    """Return the probability that so many or more of all the hits of two groups of equally many draws fall to
    the first, whose hits are `hits`, if none is favoured (Fisher's exact test)."""
    both = hits + others
    ways = (math.comb(draws, n) * math.comb(draws, both - n) for n in range(hits, min(both, draws) + 1))
    return sum(ways) / math.comb(2 * draws, both)


def _own_floors() -> dict[str, str]:
    """Return name -> metric of what the trial's own judge recognises without an attack."""
    guesses = {guess: str(METRICS[f"yardstick_{guess}_top1"].on(CLASS)) for guess in CLASS_GUESSES}
    return {"start": str(METRICS["floor_accepted"].on(CLASS)), **guesses}


def _further(metrics: Mapping[str, float]) -> Iterator[str]:
    """Yield the names of further judges."""
    start, end = f"{RECOGNISED.stage}.", f"/{RECOGNISED.metric.name}"
    for name in metrics:
        if name.startswith(start) and name.endswith(end):
            yield name.removeprefix(start).removesuffix(end)

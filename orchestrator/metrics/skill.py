"""Skill: how far an attack beats the best guess without training, and recognition chance or floor. No torch.

Both are differences over what is left to gain, 1 - error / error of the yardstick and (share - chance) /
(1 - chance): 1 is a perfect attack, 0 one that gained nothing over a look-up. They follow from other metrics
of a trial, so that no stage is computed again for them.
"""

from collections.abc import Iterator, Mapping

from orchestrator.metrics.floors import CHANCE, OVER_FLOOR, floor_words, recognitions, unrecognised
from orchestrator.metrics.names import CLASS, CLASS_GUESSES, GUESSES, METRICS, PARTS, MetricName


def error_name(part: str) -> MetricName:
    """Return the metric of the attack's error at a part: test, train or class."""
    return METRICS["mse_mean" if part == CLASS else "mse"].on(part)


def skill_name(part: str) -> MetricName:
    """Return the metric of the skill at a part: test, train or class."""
    return METRICS["skill"].on(part)


def yardstick_names(part: str) -> dict[str, MetricName]:
    """Return guess -> the metric of its error at a part: test, train or class."""
    if part == CLASS:
        return {guess: METRICS[f"yardstick_{guess}_mse"].on(part) for guess in CLASS_GUESSES}
    return {guess: METRICS[f"{guess}_mse"].on(part) for guess in GUESSES}


def best_yardstick(metrics: Mapping[str, float], part: str) -> str | None:
    """Return the guess with the smallest error of a trial's metrics; None where none was measured."""
    measured = {guess: metrics.get(str(name)) for guess, name in yardstick_names(part).items()}
    errors = {guess: error for guess, error in measured.items() if error is not None}
    return min(errors, key=lambda guess: errors[guess], default=None)


def unbeaten(metrics: Mapping[str, float]) -> dict[str, str]:
    """Return the best yardstick of each part of private images, test or train, at which the skill is not
    above 0. Images of classes are compared by who recognises them (`floors.unrecognised`)."""
    skills = {part: metrics.get(str(skill_name(part))) for part in PARTS}
    lost = [part for part, skill in skills.items() if skill is not None and skill <= 0]
    return {part: guess for part in lost if (guess := best_yardstick(metrics, part)) is not None}


def unbeaten_words(metrics: Mapping[str, float]) -> str:
    """Return the same of one trial as tables write it, `label (test, train)`, with the floors that judges of
    classes recognise as well; empty where everything is beaten."""
    return "; ".join([*guess_words(metrics), *floor_words(unrecognised(metrics))])


def guess_words(metrics: Mapping[str, float]) -> list[str]:
    """Return the yardsticks of private images that are not beaten, each with its parts."""
    parts: dict[str, list[str]] = {}
    for part, guess in unbeaten(metrics).items():
        parts.setdefault(guess, []).append(part)
    return [f"{guess} ({', '.join(named)})" for guess, named in parts.items()]


def derived(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return skill and recognition over chance of every part that a trial's metrics have them for, and of
    classes recognition over the floor, all by the trial's own judge."""
    found = {str(name): value for part in (*PARTS, CLASS) for name, value in _of_part(metrics, part)}
    own = next((one for one in recognitions(metrics) if not one.judge), None)
    return found if own is None else found | {OVER_FLOOR: own.over_floor(metrics)}


def _of_part(metrics: Mapping[str, float], part: str) -> Iterator[tuple[MetricName, float]]:
    error, guess = metrics.get(str(error_name(part))), best_yardstick(metrics, part)
    if error is not None and guess is not None:
        best = metrics[str(yardstick_names(part)[guess])]
        if best > 0:  # else there is nothing to gain
            yield skill_name(part), 1.0 - error / best
    if part != CLASS:
        placed = [metrics.get(str(METRICS[f"retrieval_{name}"].on(part))) for name in ("top1", "chance")]
        if placed[0] is not None and placed[1] is not None:
            over = (placed[0] - placed[1]) / (1.0 - placed[1])
            yield METRICS["retrieval_over_chance"].on(part), over
    recognised = METRICS["judge_top1" if part == CLASS else "accuracy_top1"].on(part)
    share, chance = metrics.get(str(recognised)), metrics.get(CHANCE)
    if share is not None and chance is not None:
        yield METRICS["over_chance"].on(part), (share - chance) / (1.0 - chance)

"""The answer of a sweep in three lines, with `code` and **strong** parts as in Markdown."""

import math
from collections.abc import Sequence

from orchestrator.report.importance import ANOVA, HIGHER, Importance, Source
from orchestrator.report.page.charts import number
from orchestrator.report.page.ranking import ACCURACY, QUERIES, Estimate, Ranked, Ranking

LEVEL = 0.05  # of F tests after Holm's correction
PERCENT = 100
MOST_DECIMALS = 8
MOST_PASSED = 3  # settings passed over that a line names
MOST_LISTED = 4  # values of an axis that a line names


def in_numbers(one: Estimate) -> str:
    """Return a mean with half its interval, `0.531 +- 0.042`, to two digits of the half; without one where
    there is none."""
    if math.isnan(one.half) or not math.isfinite(one.mean):
        return number(one.mean)
    decimals = 1 - math.floor(math.log10(one.half)) if one.half > 0 and math.isfinite(one.half) else 99
    if decimals > MOST_DECIMALS:
        return f"{number(one.mean)} \u00b1 {number(one.half, 2)}"
    decimals = max(decimals, 0)
    return f"{one.mean:.{decimals}f} \u00b1 {one.half:.{decimals}f}"


def leak_line(found: Ranking, axes: Sequence[str]) -> str:
    """Return which setting leaks most, by how much and how surely; or that none is shown to leak."""
    first = found.worst
    if first is None:
        return _none_line(found, axes)
    own = found.leak(first)
    seeds = "one replicate, so that another training may turn out otherwise"
    many = f"95 % interval over {len(first.members)} replicates"
    surely = seeds if math.isnan(own.half) else many
    if found.is_skill:
        zero = "the judge's floor" if found.is_over_floor else "a guess without training"
        one = "every image recognised" if found.is_over_floor else "a perfect copy"
        num, tested = len(found.shown), len(found.tested)
        among = f"most of the {num} settings that are" if num > 1 else "most and is the only setting that is"
        line = (
            f"**{first.words(axes)}** leaks {among} shown to leak (of {tested} tested, Holm): "
            f"`{found.leakage}` **{in_numbers(own)}** ({surely}; 0 is {zero}, 1 {one})."
        )
    else:
        most = "largest" if found.sign > 0 else "smallest"
        line = (
            f"**{first.words(axes)}** has the {most} `{found.leakage}`: **{in_numbers(own)}** ({surely}); "
            "no yardstick was measured."
        )
    if found.passed_over:
        line += f" {_passed_words(found, axes)}"
    if found.not_told_apart:
        line += (
            f" {found.not_told_apart} of the {len(found.lower)} settings below are not told apart from it."
        )
    return line + _held_words(first)


def _none_line(found: Ranking, axes: Sequence[str]) -> str:
    top = found.ranked[0]
    if not found.is_skill:
        return f"No setting is named by `{found.leakage}`: models are at chance or the metric is not finite."
    value = in_numbers(found.leak(top))
    words = f"The highest `{found.leakage}` is {value} in **{top.words(axes)}**: {_why_not(found, top)}."
    return f"**No setting is shown to leak** more than guesses without training. {words}{_held_words(top)}"


def _passed_words(found: Ranking, axes: Sequence[str]) -> str:
    """Return which settings have a larger number than the named one, and why they are not named."""
    passed = found.passed_over
    named = [
        f"{one.words(axes)} ({in_numbers(found.leak(one))}: {_why_not(found, one)})"
        for one in passed[:MOST_PASSED]
    ]
    more = f" and {len(passed) - MOST_PASSED} more" if len(passed) > MOST_PASSED else ""
    return f"Passed over though their number leaks more: {'; '.join(named)}{more}."


def _held_words(one: Ranked) -> str:
    """Return what the adversary of a setting had beyond the release; empty for nothing."""
    held = f" Its adversary itself held private images ({one.held})." if one.held else ""
    beyond = f" {one.beyond} of its queries were answered with more than the release." if one.beyond else ""
    return held + beyond


def _why_not(found: Ranking, top: Ranked) -> str:
    own = found.leak(top)
    if not math.isfinite(own.mean):
        return "it is not finite"
    if top.has_chance:
        return "its target or evaluation model is not better than chance"
    if top.unbeaten:
        return f"no better than {top.unbeaten}"
    if own.holds_zero or own.mean <= 0:
        return "its interval holds 0" if own.holds_zero else "it is not above 0"
    return f"not shown after Holm's correction over {len(found.tested)} settings"


def price_line(found: Ranking, seconds: tuple[str, str]) -> str:
    """Return at what accuracy and what cost the setting of the first line leaks. `seconds`: metric of a
    trial's costs and its unit in words."""
    one = found.worst or found.ranked[0]
    parts = []
    if accuracy := one.estimates.get(ACCURACY):
        parts.append(f"at target accuracy **{in_numbers(accuracy)}**")
    for judge, metric in found.recognition.items():
        if known := one.estimates.get(metric):
            parts.append(f"the {judge} recognises {in_numbers(known)}")
    if queries := one.estimates.get(QUERIES):
        parts.append(f"for {number(queries.mean, 6)} queries")
    name, unit = seconds
    if spent := one.estimates.get(name):
        parts.append(f"{number(spent.mean)} {unit} a trial, shared stages included")
    words = ", ".join(parts) or "accuracy and cost were not measured"
    return f"{words[0].upper()}{words[1:]}."


def axis_line(found: Importance | None) -> str:
    """Return which axis matters most for a metric, or why this is not known."""
    if found is None:
        return "Which axis matters most is not known: no finished trial has the metric."
    unknown = f"Which axis matters most for `{found.metric}` is not known"
    if not found.axes and found.all_settings < 2:
        return f"{unknown}: there is one setting."
    if not found.axes:
        return f"{unknown}: {found.method}, no two settings make a complete block."
    if not found.has_answer:
        return f"No axis matters for `{found.metric}`: it is the same in every setting."
    first, *others = found.axes
    shares = f"{share_words(first)} of the variance of `{found.metric}`"
    rest = ", ".join([f"`{one.name}` {share_words(one)}" for one in others])
    then = f"; then {rest}" if rest else ""
    if found.method != ANOVA:
        forest = f"a random forest of {found.num_settings} trials"
        if not found.explained > 0:
            return f"{unknown}: {forest} explains nothing out of bag (R2 {number(found.explained, 2)})."
        return (
            f"**{first.name}** has the largest share: {shares}{then} (an estimate by {forest}, without "
            f"interval; R2 out of bag {number(found.explained, 2)}; {found.method})."
        )
    if found.interactions:
        then += f"; interactions {_percent(sum(one.share for one in found.interactions))} %"
    for one in found.sources:
        then += "" if one.axes else f"; {one.name} {_percent(one.share)} %"
    return f"{_lead(found)}: {shares}{then} ({block_words(found)})."


def block_words(found: Importance) -> str:
    """Return what the shares are of, and what of the sweep is not in them."""
    rest = "" if found.num_settings == found.all_settings else f" of {found.all_settings}"
    seeds = (
        "one replicate each: no test"
        if found.num_replicates == 1
        else f"{found.num_replicates} replicates each"
    )
    fixed = "".join(f"; {axis} is fixed at {value}" for axis, value in found.fixed.items())
    left = "".join(f"; without {axis}={_listed(values)}" for axis, values in found.left_out.items())
    return f"exact, over {found.num_settings}{rest} settings that form a complete grid, {seeds}{fixed}{left}"


def _listed(values: Sequence[str]) -> str:
    more = f" and {len(values) - MOST_LISTED} more" if len(values) > MOST_LISTED else ""
    return ", ".join(values[:MOST_LISTED]) + more


def _lead(found: Importance) -> str:
    """Return the source of the largest share, as far as it is shown to be one."""
    first, *others = found.axes
    largest = f"**{first.name}** has the largest share of one axis"
    joint = next(iter(found.interactions), None)
    if joint is not None and joint.share > first.share:
        axes = (
            "three or more axes" if joint.name == HIGHER else " and ".join(f"**{one}**" for one in joint.axes)
        )
        shown = (
            "" if found.num_replicates == 1 or _is_shown(joint) else ", which is not shown beyond replicates"
        )
        return (
            f"{axes} act together: their interaction has {share_words(joint)}{shown}, more than any axis "
            f"alone; {largest}"
        )
    if found.num_replicates == 1:
        return largest
    if not any(_is_shown(one) for one in found.sources):
        return f"Nothing is shown to matter more than replicates differ (Holm); {largest}"
    if not _is_shown(first):
        known = [f"`{one.name}`" for one in found.sources if _is_shown(one)]
        return f"{largest}, not shown beyond replicates; shown are {', '.join(known)}"
    if not others:
        return f"**{first.name}** is the only axis, shown to matter"
    return (
        f"**{first.name}** matters most" if found.is_ahead else f"{largest}, not shown to be ahead of others"
    )


def _is_shown(one: Source) -> bool:
    return one.p_holm < LEVEL


def _percent(share: float) -> str:
    """Return a share in percent, never below 0."""
    return f"{PERCENT * max(share, 0.0):.0f}"


def share_words(one: Source) -> str:
    """Return a share in percent, with the percentiles of resampled ones where there are enough replicates."""
    if math.isnan(one.interval.low):
        return f"{_percent(one.share)} %"
    return f"{_percent(one.share)} % [{_percent(one.interval.low)}, {_percent(one.interval.high)}]"

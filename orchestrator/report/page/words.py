"""The answer of a sweep in three lines, with `code` and **strong** parts as in Markdown."""

import math
from collections.abc import Sequence

from orchestrator.report.importance import ANOVA, Importance, Source
from orchestrator.report.page.charts import number
from orchestrator.report.page.ranking import ACCURACY, QUERIES, Estimate, Ranked, Ranking

LEVEL = 0.05  # of the F test
PERCENT = 100


def in_numbers(one: Estimate) -> str:
    """Return a mean with half its interval, `0.531 +- 0.042`; without one where there is none."""
    half = "" if math.isnan(one.half) else f" \u00b1 {number(one.half, 2)}"
    return f"{number(one.mean)}{half}"


def leak_line(found: Ranking, axes: Sequence[str]) -> str:
    """Return which setting leaks most, by how much and how surely; or that none is shown to leak."""
    first = found.worst
    if first is None:
        top = found.ranked[0]
        if not found.is_skill:
            return f"No setting is called the one that leaks most by `{found.leakage}`: models are at chance."
        why = _why_not(top, found.leak(top))
        words = (
            f"The highest `{found.leakage}` is {in_numbers(found.leak(top))} in **{top.words(axes)}**: {why}."
        )
        return f"**No setting is shown to leak** more than guesses without training. {words}"
    own = found.leak(first)
    seeds = "one replicate, so that another training may turn out otherwise"
    many = f"95 % interval over {len(first.members)} replicates"
    surely = seeds if math.isnan(own.half) else many
    meaning = "; 0 is a guess without training, 1 a perfect copy" if found.is_skill else ""
    line = f"**{first.words(axes)}** leaks most: `{found.leakage}` **{in_numbers(own)}** ({surely}{meaning})."
    if found.not_told_apart:
        others = f"{found.not_told_apart} of the other {len(found.ranked) - 1} settings"
        line += f" {others} are not told apart from it."
    return line


def _why_not(top: Ranked, own: Estimate) -> str:
    if top.has_chance:
        return "its target or evaluation model is not better than chance"
    if top.unbeaten:
        return f"no better than {top.unbeaten}"
    if own.holds_zero or own.mean <= 0:
        return "its interval holds 0" if own.holds_zero else "it is below 0"
    return "the interval of its gain over them holds 0, or there is none"


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
    """Return which axis matters most for the objective, or why this is not known."""
    if found is None:
        return "Which axis matters most is not known: no finished trial has the objective."
    if not found.axes and found.all_settings < 2:
        return f"Which axis matters most for `{found.metric}` is not known: there is one setting."
    if not found.axes:
        return (
            f"Which axis matters most for `{found.metric}` is not known: {found.method}, no two settings "
            "make a complete block."
        )
    if not found.has_answer:
        return f"No axis matters for `{found.metric}`: it is the same in every setting."
    first, *others = found.axes
    shares = f"{share_words(first)} of the variance of `{found.metric}`"
    rest = ", ".join([f"`{one.name}` {share_words(one)}" for one in others])
    then = f"; then {rest}" if rest else ""
    between = [one for one in found.sources if len(one.axes) > 1]
    if between:
        then += f"; interactions {PERCENT * sum(one.share for one in between):.0f} %"
    if found.method != ANOVA:
        return (
            f"**{first.name}** matters most: {shares} by {found.method} of {found.num_settings} trials{then}."
        )
    own = next((one for one in found.sources if not one.axes), None)
    if own is not None:
        then += f"; replicates {PERCENT * own.share:.0f} %"
    return f"{_lead(found)}: {shares}{then} ({block_words(found)})."


def block_words(found: Importance) -> str:
    """Return what the shares are of."""
    rest = "" if found.num_settings == found.all_settings else f" of {found.all_settings}"
    seeds = (
        "one replicate each: no interval"
        if found.num_replicates == 1
        else f"{found.num_replicates} replicates each"
    )
    return f"exact, over {found.num_settings}{rest} settings that form a complete grid, {seeds}"


def _lead(found: Importance) -> str:
    """Return the axis of the largest share, as far as it is shown to be one."""
    first, *others = found.axes
    if found.num_replicates == 1:
        return f"**{first.name}** has the largest share"
    if not first.p < LEVEL:
        return (
            f"No axis is shown to matter more than replicates differ; the largest share has **{first.name}**"
        )
    if found.is_ahead or not others:
        return f"**{first.name}** matters most"
    return f"**{first.name}** has the largest share, not told apart from `{others[0].name}`"


def share_words(one: Source) -> str:
    """Return a share with its interval in percent."""
    share, interval = one.share, one.interval
    if math.isnan(interval.low):
        return f"{PERCENT * share:.0f} %"
    return f"{PERCENT * share:.0f} % [{PERCENT * interval.low:.0f}, {PERCENT * interval.high:.0f}]"

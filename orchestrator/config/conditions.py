"""Conditional axes: an axis with `when` is active only where axes above it have certain values.

target.defense: [{label: none}, {label: BiDO, bido: {}}]
target.defense.bido.weight_x: {when: {target.defense: BiDO}, low: 0.001, high: 1, log: true}
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from orchestrator.config.base import NO_VALUE, Refused, Scalar, is_same
from orchestrator.config.search import Choices, Range, When

Shown = Callable[[Any, str], Scalar]
"""How tables write a value of an axis."""


def listed(values: Any) -> list[Any] | None:
    """Return the values of an axis that lists them, None of a range."""
    chosen: Any = values.values if isinstance(values, Choices) else values
    return chosen if isinstance(chosen, list) else None


def condition(values: Any) -> When:
    """Return the values of other axes at which an axis is asked; none: it is always asked."""
    return values.when if isinstance(values, Range | Choices) else {}


def is_asked(values: Any, chosen: Mapping[str, Any], shown: Shown) -> bool:
    """Return whether an axis is asked beside the values that the axes above it have; of axes that are not
    asked themselves `chosen` has none."""
    return all(
        axis in chosen and _is_wanted(chosen[axis], axis, wanted, shown)
        for axis, wanted in condition(values).items()
    )


def values_beside(values: Any, parent: str, own: Any, shown: Shown) -> Any:
    """Return the values of an axis above beside which an axis is asked; all that do not exclude it."""
    conditions = condition(values)
    if parent not in conditions:
        return own
    return [one for one in listed(own) or () if _is_wanted(one, parent, conditions[parent], shown)]


def combinations(grid: Mapping[str, Any], shown: Shown) -> Iterator[dict[str, Any]]:
    """Yield the values of every combination of listed axes, the last one fastest, without axes that are
    not asked."""
    axes = list(grid.items())

    def extended(place: int, chosen: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if place == len(axes):
            yield chosen
            return
        axis, values = axes[place]
        if not is_asked(values, chosen, shown):
            yield from extended(place + 1, chosen)
            return
        for value in listed(values) or ():
            yield from extended(place + 1, {**chosen, axis: value})

    yield from extended(0, {})


def in_which_asked(grid: Mapping[str, Any], axis: str, shown: Shown) -> dict[str, Any] | None:
    """Return values of the axes above at which an axis is asked, those of its conditions and of theirs; None
    if there are none."""
    above = _depended_on(grid, axis)
    lists = {parent: values for parent, values in grid.items() if parent in above}
    return next((own for own in combinations(lists, shown) if is_asked(grid[axis], own, shown)), None)


def _depended_on(grid: Mapping[str, Any], axis: str) -> set[str]:
    parents = condition(grid[axis])
    return set(parents).union(*(_depended_on(grid, parent) for parent in parents))


def check_asked(grid: Mapping[str, Any], shown: Shown) -> None:
    """Raise `Refused` if conditions that are right one by one exclude each other, so that an axis is never
    asked."""
    for axis, values in grid.items():
        if condition(values) and in_which_asked(grid, axis, shown) is None:
            rule = "never holds: the conditions of the axes that it names exclude each other"
            raise Refused(f"sweep.{axis}.when", NO_VALUE, rule, "correct one of them or drop the axis")


def check_conditions(grid: Mapping[str, Any], shown: Shown) -> None:
    """Raise `Refused` if an axis depends on none above it, on a range, or on a value that is none of its."""
    above: list[str] = []
    for axis, values in grid.items():
        for parent, wanted in condition(values).items():
            field = f"sweep.{axis}.when"
            if parent not in above:
                rule = f"is no axis above {axis}"
                known = f"above are {', '.join(above)}" if above else "there is none above"
                raise Refused(field, parent, rule, f"{known}; put {axis} below the axis it depends on")
            own = listed(grid[parent])
            if own is None:
                raise Refused(field, parent, "is a range, which has no listed values", "depend on a list")
            texts = [shown(value, parent) for value in own]
            for one in wanted if isinstance(wanted, list) else [wanted]:
                if not any(is_same(_text(one, parent, shown), text) for text in texts):
                    rule = f"is no value of {parent}"
                    raise Refused(f"{field}.{parent}", one, rule, f"it has {', '.join(map(str, texts))}")
            if isinstance(wanted, list) and not wanted:
                raise Refused(f"{field}.{parent}", NO_VALUE, "names no value", "name one or drop `when`")
        above.append(axis)


def _is_wanted(value: Any, axis: str, wanted: Any, shown: Shown) -> bool:
    texts = [_text(one, axis, shown) for one in (wanted if isinstance(wanted, list) else [wanted])]
    return any(is_same(shown(value, axis), text) for text in texts)


def _text(wanted: Scalar | None, axis: str, shown: Shown) -> Scalar:
    return shown(None, axis) if wanted is None else wanted

"""Charts of the page as inline SVG: text that can be found, no script, readable on 390 pixels.

Marks take colours that the colour-blind tell apart; where a colour says how much leaks, darker leaks more.
Axes and letters take the colour of the page's text, so that they follow its light or dark scheme.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

WIDTH = 360
LABEL, NUMBER = 134, 112  # of rows: widths of names and of numbers
ROW = 22
LETTERS = 19  # of a name beside a row, in fonts as wide as DejaVu Sans: `auxiliary x budget` has 18
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#767676"
LIGHTEST, DARKEST = (222, 235, 247), (8, 48, 107)  # of the scale that says how much leaks
TICKS = 4
MIDDLE = 0.179  # luminance on which black and white letters are read equally well (WCAG 2.2)


@dataclass(frozen=True)
class Row:
    """One line of a chart of rows."""

    label: str
    value: float
    low: float = math.nan
    high: float = math.nan
    text: str = ""
    shade: float | None = None  # 0 leaks least, 1 most; None: not about leakage


@dataclass(frozen=True)
class Dot:
    """One setting of a scatter chart."""

    label: str
    x: float
    y: float
    x_half: float
    y_half: float
    is_front: bool
    name: str = ""  # written beside it


def shade(share: float) -> tuple[str, str]:
    """Return the colour of a share of the range, darker for more, and that of letters upon it."""
    share = min(max(share, 0.0), 1.0)
    parts = [round(low + share * (high - low)) for low, high in zip(LIGHTEST, DARKEST, strict=True)]
    linear = [(part / 255 + 0.055) ** 2.4 / 1.055**2.4 if part > 10 else part / 3294 for part in parts]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#{:02x}{:02x}{:02x}".format(*parts), "#ffffff" if luminance < MIDDLE else "#000000"


def number(value: float, digits: int = 3) -> str:
    """Return a number for people; empty for NaN."""
    return "" if math.isnan(value) else f"{value:.{digits}g}"


def shortened(label: str) -> str:
    """Return a name that fits beside a row: the end of a path, whose last part tells most, and the start of
    anything else."""
    if len(label) <= LETTERS:
        return label
    is_path = "." in label and " " not in label
    return ".." + label[2 - LETTERS :] if is_path else label[: LETTERS - 2] + ".."


def tick_words(value: float, width: float) -> str:
    """Return a number on a scale of this width with as many digits as tell its neighbours apart."""
    largest = max(abs(value), width)
    return number(value, max(3, math.floor(math.log10(largest)) - math.floor(math.log10(width)) + 2))


def rows_chart(rows: Sequence[Row], title: str, *, ends: tuple[float, float], is_bar: bool = False) -> str:
    """Return a chart with a row for each value: its name, a mark with its interval, its number. Its label
    for those who do not see it has all of them.

    `ends` of the scale, which charts that are compared share.
    """
    low, high = ends if ends[1] > ends[0] else (ends[0] - 0.5, ends[0] + 0.5)
    left, right = LABEL, WIDTH - NUMBER
    height = ROW * len(rows) + 24

    def place(value: float) -> float:
        return left + (min(max(value, low), high) - low) / (high - low) * (right - left)

    told = "; ".join(f"{row.label} {row.text}".rstrip() for row in rows)
    parts = [_open(height, f"{title}: {told}")]
    for tick in _ticks(low, high):
        at = place(tick)
        strong = ' class="zero"' if tick == 0 else ' class="grid"'
        words = tick_words(tick, high - low)
        parts.append(f'<line{strong} x1="{at:.1f}" x2="{at:.1f}" y1="2" y2="{ROW * len(rows) + 2}"/>')
        parts.append(f'<text x="{at:.1f}" y="{height - 8}" text-anchor="middle">{words}</text>')
    for at, row in enumerate(rows):
        y = ROW * at + ROW / 2 + 2
        short = shortened(row.label)
        name = f"<title>{escape(row.label)}</title>" if short != row.label else ""
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{name}{escape(short)}</text>')
        colour = BLUE if row.shade is None else shade(row.shade)[0]
        if not math.isnan(row.value):
            x = place(row.value)
            if is_bar:
                zero = place(0.0)
                box = f'x="{min(x, zero):.1f}" y="{y - 7:.1f}" width="{abs(x - zero):.1f}" height="14"'
                parts.append(f'<rect {box} fill="{colour}"/>')
            if not math.isnan(row.low):
                ends_ = f'x1="{place(row.low):.1f}" x2="{place(row.high):.1f}" y1="{y:.1f}" y2="{y:.1f}"'
                parts.append(f'<line class="whisker" {ends_}/>')
            if not is_bar:
                parts.append(f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{right + 8}" y="{y + 4:.1f}">{escape(row.text)}</text>')
    return "".join([*parts, "</svg>"])


def scatter_chart(
    dots: Sequence[Dot],
    title: str,
    x_label: str,
    y_label: str,
    *,
    is_flipped: bool = False,
    is_log: bool = False,
) -> str:
    """Return a chart of leakage, upwards, over accuracy. `is_flipped`: a smaller number leaks more; `is_log`:
    the scale across is logarithmic, its numbers positive and without intervals."""
    if is_log:
        dots = [replace(dot, x=math.log10(dot.x)) for dot in dots]
    height, left, right, top, bottom = 300, 46, WIDTH - 10, 22, 258
    x_low, x_high = _ends([dot.x for dot in dots], [dot.x_half for dot in dots])
    y_low, y_high = _ends([dot.y for dot in dots], [dot.y_half for dot in dots])

    def across(value: float) -> float:
        return left + (value - x_low) / (x_high - x_low) * (right - left)

    def up(value: float) -> float:
        share = (value - y_low) / (y_high - y_low)
        return top + (share if is_flipped else 1 - share) * (bottom - top)

    parts = [_open(height, title)]
    for tick in _ticks(x_low, x_high):
        parts.append(
            f'<line class="grid" x1="{across(tick):.1f}" x2="{across(tick):.1f}" y1="{top}" y2="{bottom}"/>'
            f'<text x="{across(tick):.1f}" y="{bottom + 15}" text-anchor="middle">'
            f"{number(10**tick, 2) if is_log else tick_words(tick, x_high - x_low)}</text>"
        )
    for tick in _ticks(y_low, y_high):
        kind = "zero" if tick == 0 else "grid"
        parts.append(
            f'<line class="{kind}" x1="{left}" x2="{right}" y1="{up(tick):.1f}" y2="{up(tick):.1f}"/>'
            f'<text x="{left - 5}" y="{up(tick) + 4:.1f}" text-anchor="end">'
            f"{tick_words(tick, y_high - y_low)}</text>"
        )
    front = sorted((dot for dot in dots if dot.is_front), key=lambda dot: dot.x)
    line = " ".join(f"{across(dot.x):.1f},{up(dot.y):.1f}" for dot in front)
    parts.append(f'<polyline class="front" points="{line}"/>')
    for dot in sorted(dots, key=lambda one: one.is_front):
        x, y = across(dot.x), up(dot.y)
        lines = ""
        if not math.isnan(dot.x_half):
            lines += f"M{across(dot.x - dot.x_half):.1f} {y:.1f}H{across(dot.x + dot.x_half):.1f}"
        if not math.isnan(dot.y_half):
            lines += f"M{x:.1f} {up(dot.y - dot.y_half):.1f}V{up(dot.y + dot.y_half):.1f}"
        whisker = f'<path class="whisker thin" d="{lines}"/>' if lines else ""
        mark = (
            f'<rect class="mark" x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9" fill="{ORANGE}"/>'
            if dot.is_front
            else f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{BLUE}"/>'
        )
        words = f'<text x="{x + 7:.1f}" y="{y - 6:.1f}">{escape(dot.name)}</text>' if dot.name else ""
        parts.append(f"<g><title>{escape(dot.label)}</title>{whisker}{mark}{words}</g>")
    parts.append(
        f'<text x="{(left + right) / 2}" y="{height - 8}" text-anchor="middle">{escape(x_label)}</text>'
    )
    parts.append(f'<text x="2" y="12">{escape(y_label)}</text>')
    return "".join([*parts, "</svg>"])


def _open(height: float, title: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'


def _ends(values: Sequence[float], halves: Sequence[float]) -> tuple[float, float]:
    """Return the ends of a scale that shows every interval, with room beside."""
    spans = [0.0 if math.isnan(half) else half for half in halves]
    low = min(value - span for value, span in zip(values, spans, strict=True))
    high = max(value + span for value, span in zip(values, spans, strict=True))
    room = 0.06 * (high - low) or max(abs(high), 1.0) * 0.05
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers between the ends."""
    step = 10 ** math.floor(math.log10((high - low) / TICKS))
    step = next(step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= TICKS + 1)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(at * step, 12) + 0.0 for at in range(first, last + 1)]

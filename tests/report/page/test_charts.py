"""Charts: places by hand, text escaped, well-formed."""

import math
import re
import xml.etree.ElementTree as ET

import pytest

from orchestrator.report.page.charts import Dot, Row, rows_chart, scatter_chart, shade, shortened

NAN = math.nan


def test_rows_have_marks_in_order_of_their_values_and_their_words() -> None:
    rows = [Row("a <b>", 0.0, -0.5, 0.5, "0 & more"), Row("long " * 9, 1.0, text="1"), Row("none", NAN)]
    svg = rows_chart(rows, 'a "title"', ends=(-1.0, 1.0))
    root = ET.fromstring(svg)
    assert root.get("aria-label") == f'a "title": a <b> 0 & more; {"long " * 9} 1; none'
    marks = [float(one.get("cx", "")) for one in root.iter("circle")]
    assert len(marks) == 2
    assert marks[0] < marks[1]
    words = ["".join(one.itertext()) for one in root.iter("text")]
    assert {"a <b>", "0 & more", "0", "1"} <= set(words)
    assert any(one.startswith("long long") and one.endswith("..") for one in words)
    assert shortened("attack.recipe.learning_rate") == "..ipe.learning_rate"
    assert {len(shortened(one)) for one in ("a" * 99, "a.b" * 99, "a.b x c.d" * 9)} == {19}


def test_bars_start_at_0() -> None:
    root = ET.fromstring(rows_chart([Row("a", 50.0), Row("b", 100.0)], "t", ends=(0.0, 100.0), is_bar=True))
    widths = [float(one.get("width", "")) for one in root.iter("rect")]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.2)


@pytest.mark.parametrize("is_flipped", [False, True])
def test_up_leaks_more(is_flipped: bool) -> None:
    dots = [Dot("low <", 0.5, 1.0, NAN, NAN, False), Dot("high", 0.9, 2.0, 0.01, 0.1, True, "1")]
    root = ET.fromstring(scatter_chart(dots, "t", "x & y", "leak", is_flipped=is_flipped))
    (low,), (high,) = root.iter("circle"), list(root.iter("rect"))
    assert float(low.get("cx", "")) < float(high.get("x", ""))
    assert (float(low.get("cy", "")) < float(high.get("y", ""))) == is_flipped
    assert {"low <", "high"} == {one.text for one in root.iter("title")}


def test_one_dot_and_equal_ends_have_a_scale() -> None:
    for svg in (
        scatter_chart([Dot("a", 0.0, 0.0, NAN, NAN, True)], "t", "x", "y"),
        rows_chart([Row("a", 1.0)], "t", ends=(1.0, 1.0)),
    ):
        assert not re.search("nan|inf", svg)
        ET.fromstring(svg)


def test_letters_can_be_read_on_every_shade() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for step in range(21):
        dark, light = sorted(map(luminance, shade(step / 20)))
        assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2.2, contrast of text

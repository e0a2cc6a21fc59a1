"""Terminal tables: rows whose numbers read held images, and attacks answered with more than the release."""

import io

from rich.console import Console

from jobs.tables import _claimed_orders, _judged, _rich_table, _summary, _table
from orchestrator.report.held import MEANING
from orchestrator.report.tables import summary_table
from orchestrator.sweep.adversary import BEYOND
from tests.report.trials import MSE, record

OTHER = "class/delta_facenet"


def printed(table: object, width: int = 200) -> str:
    """Return a table as a terminal shows it, a wide one unless told."""
    file = io.StringIO()
    Console(width=width, file=file).print(table)
    return file.getvalue()


def test_the_summary_marks_held_images_and_says_what_that_means() -> None:
    held = record(0, {"auxiliary": "same-test"}, {MSE: 0.5, BEYOND: 64.0}, held=("test",))
    own = record(1, {"auxiliary": "same-heldout"}, {MSE: 0.6, BEYOND: 0.0})
    text = printed(_rich_table(summary_table([held, own], [MSE]), [MSE]))
    (marked,) = [line for line in text.splitlines() if "same-test" in line]
    (plain,) = [line for line in text.splitlines() if "same-heldout" in line]
    assert "test" in marked.replace("same-test", "")
    assert "64" in marked
    assert "test" not in plain
    assert MEANING in text
    text = printed(_rich_table(summary_table([own], [MSE]), [MSE]))
    assert "held" not in text.replace("same-heldout", "")
    assert BEYOND not in text


def test_the_summary_is_printed_as_its_file_has_it() -> None:
    names = f"m,held,no better than,{MSE},{MSE} +-,{OTHER},{OTHER} +-"
    content = f"{names}\n1,,chance (class),0.123456,0.01,needs a network,\nall,,,0.5,,needs a network,\n"
    lines = printed(_rich_table(_summary(content.encode(), [MSE, OTHER]), [MSE, OTHER])).splitlines()
    (marked,) = [line for line in lines if "chance (class)" in line]
    (plain,) = [line for line in lines if "all" in line]
    assert "0.1235 +- 0.0100" in marked
    assert "needs a network" in marked
    assert "0.5000" in plain
    assert "nan" not in plain


def orders(*steps: dict[str, str]) -> bytes:
    """Return orderings.csv with some steps."""
    names = (
        *("claim", "source", "metric", "axis", "lower", "upper", "setting", "difference", "low", "high"),
        *("seeds_agreeing", "seeds", "p_flip", "p_holm", "verdict", "resampled", "fixed", "note"),
    )
    lines = [",".join(f'"{step.get(name, "")}"' for name in names) for step in steps]
    return "\n".join([",".join(names), *lines, ""]).encode()


def test_claims_and_notes_of_orders_are_printed_once() -> None:
    shared = {"claim": "held ones", "p_flip": "0.25", "resampled": "3 seed x 62 classes", "fixed": "split"}
    shared |= {"note": "False: 64 queries beyond the release"}
    text = printed(
        _claimed_orders(
            orders(
                shared | {"axis": "m", "lower": "1", "upper": "3", "setting": "align=True, k=5"},
                shared | {"axis": "m", "lower": "1", "upper": "3", "setting": "align=True, k=3"},
                shared | {"claim": "other ones", "setting": "k=5"},
            )
        )
    )
    for once in ("held ones", "resampled: 3 seed x 62 classes", "held fixed: split", "align=True"):
        assert text.count(once) == 1
    assert text.count("note: False: 64 queries beyond the release") == 2  # claims
    first, second, _ = (line.split() for line in text.splitlines() if "0.25" in line)
    assert first == ["m:", "1", "->", "3", "k=5", "/", "0.25"]
    assert second == ["m:", "1", "->", "3", "k=3", "/", "0.25"]


def test_the_verdict_is_whole_on_a_narrow_terminal() -> None:
    step = {"axis": "auxiliary", "lower": "same-heldout", "upper": "same-test", "setting": "m=1"}
    step |= {"difference": "-0.0004546", "low": "-0.0001141", "high": "-0.0007952", "seeds_agreeing": "10"}
    step |= {"seeds": "10", "p_flip": "0.001953", "p_holm": "0.00195", "verdict": "not shown"}
    text = printed(_claimed_orders(orders(step)), width=80)
    assert "not shown" in text
    assert "0.00195" in text


def test_judges_are_printed_side_by_side() -> None:
    """Without columns that are wide or empty; halves of intervals stand beside their means."""
    names = "m,part,judge,judge +-,wide,wide +-,top-5 judge,top-5 judge +-,false positives,false positives +-"
    text = printed(_judged(f"{names}\n1,test,0.95,0.02,0.5,,0.99,,0.123456,\n".encode()))
    for cell in ("judge", "0.95 +- 0.02", "wide", "0.5", "false positives", "0.1235"):
        assert cell in text
    assert "top-5" not in text
    assert "0.5 +-" not in text


def test_what_rows_share_stands_below_their_table() -> None:
    rows = [{"budget": each, "resampled": "3 seed", "fixed": "split", "note": ""} for each in ("a", "b")]
    text = " ".join(printed(_table("title", rows)).split())  # as wide as its table
    assert text.count("resampled: 3 seed") == text.count("held fixed: split") == 1
    assert "note" not in text

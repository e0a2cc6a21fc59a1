"""Terminal tables: rows whose numbers read held images, and attacks answered with more than the release."""

import io

from rich.console import Console

from jobs.tables import _claimed_orders, _rich_table
from orchestrator.report.held import MEANING
from orchestrator.report.tables import summary_table
from orchestrator.sweep.adversary import BEYOND
from tests.report.trials import MSE, record


def printed(table: object) -> str:
    """Return a table as a wide terminal shows it."""
    file = io.StringIO()
    Console(width=200, file=file).print(table)
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


def test_claims_and_notes_of_orders_are_printed() -> None:
    names = (
        *("claim", "source", "metric", "axis", "lower", "upper", "setting", "difference", "low", "high"),
        *("seeds_agreeing", "seeds", "p_flip", "p_holm", "verdict", "resampled", "fixed", "note"),
    )
    row = dict.fromkeys(names, "") | {"claim": "held ones", "note": "False: 64 queries beyond the release"}
    row |= {"p_flip": "0.25", "resampled": "3 seed x 62 classes", "fixed": "split"}
    text = printed(_claimed_orders(f"{','.join(row)}\n{','.join(row.values())}\n".encode()))
    assert "held ones" in text
    assert "64 queries beyond the release" in text
    assert "0.25" in text
    assert "3 seed x 62 classes" in text
    assert "held fixed: split" in text

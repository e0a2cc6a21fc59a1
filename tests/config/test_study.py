"""Studies: axes in order of appearance, and the parts that the key of a sweep leaves out."""

from orchestrator.config.search import Range
from tests import tiny


def test_axes_list_values_in_order_of_appearance_and_ranges_by_their_ends() -> None:
    grids = tiny.study([{"seed": [1, 0], "release.truncation": [None, 1]}, {"seed": [2, 1]}])
    assert grids.axes() == {"seed": [1, 0, 2], "m": ["all", 1]}
    ranged = tiny.study({"attack.offset": {"low": 1, "high": 9}}, search={"algorithm": "random"})
    assert ranged.axes() == {"attack.offset": [1.0, 9.0]}
    assert isinstance(ranged.sweep[0]["attack.offset"], Range)


def test_words_and_resources_leave_the_sweep_what_it_is() -> None:
    plain = tiny.study({"seed": [0]})
    assert tiny.study({"seed": [0]}, about="x", report={"columns": 3}).key == plain.key
    assert tiny.study({"seed": [1]}).key != plain.key
    assert tiny.study({"seed": [0]}, {"attack.offset": 1.0}).key != plain.key
    assert tiny.study({"seed": [0]}, search={"seed": 1}).key != plain.key

"""Sections: a part that fails leaves a line, damaged files and refusals end the report."""

import pytest

from orchestrator.config.base import Refused
from orchestrator.report.sections import Sections
from orchestrator.store.artifacts import Corrupt


def test_a_part_that_fails_is_a_line_of_its_section(caplog: pytest.LogCaptureFixture) -> None:
    sections = Sections()
    assert sections.made("costs", "the table", lambda: [1], []) == [1]
    assert sections.faults == {}

    def fail() -> list[int]:
        raise KeyError("a\nb")

    assert sections.made("costs", "the table", fail, []) == []
    assert sections.made("costs", "the sum", fail, [2]) == [2]
    lines = [f"{part} could not be made: KeyError: 'a\\nb'" for part in ("the table", "the sum")]
    assert sections.faults == {"costs": lines}
    assert sections.lines == lines
    assert caplog.text.count("event=section_left_out section=costs") == 2
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    "error", [Corrupt("a" * 64, "x.npy", "1", "2", "q"), Refused("report.metrics", "x", "is no metric", "")]
)
def test_damage_and_refusals_are_no_faults_of_a_section(error: Exception) -> None:
    def fail() -> None:
        raise error

    sections = Sections()
    with pytest.raises(type(error)):
        sections.made("costs", "the table", fail, None)
    assert sections.lines == []

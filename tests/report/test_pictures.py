"""Pictures that fail: a warning and the rest of the report, a damaged file excepted."""

import pytest

from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.report import heatmaps
from orchestrator.report.pictures import drawn
from orchestrator.report.tables import report_files
from orchestrator.store.artifacts import Artifacts, Corrupt
from tests import tiny
from tests.report.trials import grid


def fail(error: Exception) -> bytes:
    """Draw nothing."""
    raise error


def test_a_picture_that_fails_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert drawn("a.png", bytes, b"png") == b"png"
    assert drawn("a.png", fail, MemoryError("no\nroom")) is None
    assert caplog.messages == ["event=picture_left_out name=a.png error=MemoryError reason='no room'"]
    with pytest.raises(Corrupt):
        drawn("a.png", fail, Corrupt("key", "a.npy", "1", "2", "quarantine"))


def test_a_report_without_its_picture_has_its_tables(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def figure_png(_: object) -> bytes:
        raise ValueError("too large")

    monkeypatch.setattr(heatmaps, "figure_png", figure_png)
    study = tiny.study({"release.truncation": [1, 2], "target.classes": [2, 3]})
    records = grid({(1, 2): [0.1], (1, 3): [0.2], (2, 3): [0.3]})
    files = report_files(study, records, Artifacts(MemoryBlobs("memory")))
    assert {"results.csv", "summary.csv"} <= set(files)
    assert not any(name.endswith(".png") for name in files)
    assert "event=picture_left_out name=heatmap-m-k.png error=ValueError reason='too large'" in caplog.text

"""The benchmark of budgets runs and prints every setting beside the undefended training."""

import sys

import pytest

from benchmarks import budgets


def test_every_setting_has_its_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--width", "0.02", "--epochs", "1", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", ["budgets", *arguments])
    budgets.main()
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["setting", "theta_C", "seconds", "ratio", "all"]
    assert [row[:42].strip() for row in rows] == [setting.label for setting in budgets.SETTINGS]
    assert rows[0].split()[-2] == "1.00"  # the ratio; then the only time
    counts = [int(row[42:53].replace(",", "")) for row in rows[:6]]
    assert counts == sorted(counts, reverse=True)  # of full and five budgets

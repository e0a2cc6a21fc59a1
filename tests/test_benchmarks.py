"""Spans modules: the benchmarks run and print every row; no time is asserted."""

import sys
from dataclasses import replace

import pytest

from benchmarks import budgets, reading
from orchestrator.datasets import Location, load, staging
from orchestrator.datasets.catalog import Dataset
from tests import s3


def few(name: str, location: Location) -> Dataset:
    """Return every twelfth image of a set: each training has a few batches."""
    whole = load(name, location)
    splits = {split: parts[::12] for split, parts in whole.splits.items()}
    return replace(whole, images=whole.images[::12], labels=whole.labels[::12], splits=splits)


def test_every_setting_has_its_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--width", "0.02", "--epochs", "1", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", ["budgets", *arguments])
    monkeypatch.setattr(budgets, "load", few)
    budgets.main()
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["setting", "theta_C", "seconds", "ratio", "all"]
    assert [row[:42].strip() for row in rows] == [setting.label for setting in budgets.SETTINGS]
    assert rows[0].split()[-2] == "1.00"  # the ratio; then the only time
    counts = [int(row[42:53].replace(",", "")) for row in rows[:6]]
    assert counts == sorted(counts, reverse=True)  # of full and five budgets


def test_every_way_of_reading_has_its_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(staging, "SHARD_BYTES", staging.SHARD_BYTES)  # which the benchmark sets
    for name in (*s3.CREDENTIALS, "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, "set by the benchmark")
    monkeypatch.setattr(sys, "argv", ["reading", "--mib", "1", "--shard-mib", "0.25", "--repeats", "1"])
    reading.main()
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["way", "seconds", "MB/s", "ratio", "CPU", "s", "all", "seconds"]
    assert [row[:36].strip() for row in rows] == list(reading.WAYS)
    assert rows[0].split()[-3] == "1.00"  # the ratio; then CPU seconds and the only time

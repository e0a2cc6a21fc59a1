"""Spans modules: the benchmarks run and print every row; no time is asserted."""

import asyncio
import sys
import time
from dataclasses import replace

import pytest

from benchmarks import budgets, reading, scale
from benchmarks.simulation import SimulatedLoop
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


def test_a_simulated_sweep_grows_with_its_trials() -> None:
    """A fifth of a percent of the largest: each size in a process of its own, as the benchmark runs them."""
    sizes = (40, 80, 160)
    every = [scale.in_process(size, scale.Setting(size * 3 // 10, groups=4)) for size in sizes]
    assert [one.trials for one in every] == list(sizes)
    for one in every:
        assert one.bound <= one.makespan < 2 * one.bound
        assert one.stages < one.trials
        assert one.calls["finish"] == one.stages, "every stage is built once"
        assert one.most_drivers <= 4 + 2
    rows = scale.rows(every)
    linear = ("broker: calls", "journal, kB")
    assert all(0.5 < scale.exponent(sizes, rows[label]) < 1.4 for label in linear)
    spent = [sum(one.cpu.values()) for one in every]
    assert scale.exponent(sizes, spent) < 1.7


def test_planned_stages_are_simulated_too_and_every_row_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    every = [scale.simulate(32, scale.Setting(None, groups=4, mlflow_runs=2))] * 2
    every[1] = replace(every[1], trials=64)
    scale.print_table(every)
    heading, *rows, mlflow = capsys.readouterr().out.splitlines()
    assert heading.split() == ["trials", "32", "64", "growth"]
    assert [row[:34].strip() for row in rows] == list(scale.rows(every))
    assert every[0].stages > 5 * 32
    assert mlflow.startswith("MLflow, CPU s a record: ")
    assert min(every[0].mlflow_seconds) > 0


def test_simulated_time_leaps_but_stands_still_while_a_thread_computes() -> None:
    loop, ended = SimulatedLoop(), list[tuple[str, float]]()

    async def asked(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return loop.time()

    def compute() -> str:
        time.sleep(0.05)  # real: the clock waits for it
        first = loop.call_from_thread(lambda: asked(1000.0))
        time.sleep(0.05)
        return f"{first:g} {loop.call_from_thread(lambda: asked(10.0)):g}"

    async def story() -> None:
        loop.start_thread(compute, lambda result: ended.append((result, loop.time())))
        await asyncio.sleep(1005.0)
        assert not ended
        await asyncio.sleep(10.0)

    start = time.monotonic()
    loop.run_until_complete(story())
    loop.close()
    assert ended == [("1000 1010", 1010.0)]
    assert time.monotonic() - start < 60.0

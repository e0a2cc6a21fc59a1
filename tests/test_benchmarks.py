"""Spans modules: the benchmarks run and print every row; no time is asserted."""

import asyncio
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import budgets, demo, forecast, reading, scale, search
from benchmarks.rows import NETWORKS, Place
from benchmarks.simulation import SimulatedLoop
from benchmarks.steps import __main__ as steps
from benchmarks.steps.rows import Setting, loops
from orchestrator.attacks import latent
from orchestrator.datasets import Location, load, staging
from orchestrator.datasets.catalog import Dataset
from orchestrator.models.outlines import AMI_CHANNELS, AMI_HIDDEN_PER_CLASS
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.listing import published
from orchestrator.sweep.rates import seconds_of
from tests import s3, tiny


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


def test_every_search_has_its_row_beside_random(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = {"epochs": 1, "batch_size": 64}
    base = search.STUDY["base"]
    for part, value in (("target", {"classes": 5, "model": search.DIGIT, "recipe": short}), ("judge", {})):
        monkeypatch.setitem(base, part, {**base[part], **value})
    sizes = ["--trials", "2", "--seeds", "1", "--batch", "2", "--population", "2", "--searches", "NSGA-II"]
    monkeypatch.setattr(sys, "argv", ["search", *sizes])
    search.main()
    title, heading, *rows = capsys.readouterr().out.splitlines()
    assert title.startswith("hypervolume after 2 trials, beyond {'attack/accuracy_top1_test': 1.0, ")
    assert heading.split() == ["search", "mean", "-", "random", "+-", "verdict", "all"]
    assert [row[:10].strip() for row in rows] == ["random", "NSGA-II"]
    drawn, found = (float(row.split()[-1]) for row in rows)
    assert 0.0 <= drawn < 0.8  # at most (1 - 0) (1 - 0.2)
    assert float(rows[1].split()[2]) == pytest.approx(found - drawn, abs=1e-4)


@pytest.mark.parametrize(
    ("differences", "words"),
    [([0.1, 0.11, 0.12], "better than random"), ([-0.1, -0.11, -0.12], "random wins"), ([0.1, -0.1], "no")],
)
def test_who_wins_is_said_by_the_interval(differences: list[float], words: str) -> None:
    mean, half = search.interval(differences)
    assert search.verdict(mean, half).startswith(words)
    assert search.interval([1.0, 2.0, 3.0]) == (2.0, pytest.approx(2.4841, abs=1e-4))  # t 4.3027, n = 3


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


def test_every_network_has_a_line_for_each_precision_and_equal_losses(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latent, "SEGMENT", latent.SEGMENT)  # which the benchmark sets
    steps.main(["--width", "0.02", "--batch", "3", "--steps", "1", "--repeats", "1", "--side", "32"])
    choice, heading, *lines = capsys.readouterr().out.splitlines()
    assert choice.startswith("auto: float32 (width 0.02, ")
    assert heading.split("  ")[0] == "row"
    rows = [line.split() for line in lines]
    wanted = [[name, precision] for name, one in NETWORKS.items() for precision in one.precisions]
    assert [row[:2] for row in rows] == wanted
    operations = {name: float(row[5]) for name, *_ in wanted for row in rows if row[0] == name}
    assert operations["face-inverter"] > operations["digit-inverter"] > 0
    for name, precision, *cells in rows:
        our_loss, plain_loss = float(cells[-2]), float(cells[-1])
        exact = 1e-3 if name == "vgg16" else 1e-4  # first losses are equal; 13 batch norms of three images
        tolerance = exact if precision == "float32" else 0.1  # turn the rounding of one update into 4e-4
        assert our_loss == pytest.approx(plain_loss, rel=tolerance), (name, precision)
        assert all(float(cell.rstrip("%")) > 0 for cell in cells[:5]), (name, precision)


def test_rows_and_precisions_are_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["--width", "0.02", "--batch", "2", "--steps", "1", "--repeats", "1", "--side", "32"]
    steps.main(["--rows", "digit-classifier", "--precisions", "bfloat16", *tiny])
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[2:]] == [
        ["digit-classifier", "bfloat16"]
    ]


def test_operations_of_an_image_are_those_of_its_layers() -> None:
    """Digit F, forward: three convolutions of 3x3 and two linear layers; a gradient takes twice as many."""
    setting = Setting(NETWORKS["digit-classifier"], Place(precision="float32", width=1 / 16), 2)
    c1, c2, c3 = (count // 16 for count in AMI_CHANNELS[32])
    convolutions = [9 * 1 * c1 * 32**2, 9 * c1 * c2 * 16**2, 9 * c2 * c3 * 8**2]
    linear = [c3 * 4 * 4 * AMI_HIDDEN_PER_CLASS * 10, AMI_HIDDEN_PER_CLASS * 10 * 10]
    # The gradient by the images is not needed: the first convolution takes one product fewer.
    adds = 3 * sum((*convolutions, *linear)) - convolutions[0]
    assert loops("digit-classifier", setting).flop == 2 * 2 * adds


def test_stages_of_the_demo_are_counted_and_the_largest_comes_first(tmp_path: Path) -> None:
    store = Artifacts(DirectoryBlobs(tmp_path))
    for key, stage, seconds in (("aa1", "target", 1.0), ("bb2", "inversion", 2.0), ("cc3", "inversion", 4.0)):
        store.publish(Artifact(key=key, stage=stage, version=1, spec={}, cost={"cpu_seconds": seconds}), {})
    measured = {**demo.stage_seconds(tmp_path), "command": 10.0}
    assert measured == {"target": 1.0, "inversion": 6.0, "command": 10.0}
    assert [line.split() for line in demo.lines("here", [measured, {**measured, "command": 12.0}])] == [
        ["here:", "command", "11.0", "CPU", "s,", "stages", "7.0", "CPU", "s"],
        ["inversion", "6.00", "CPU", "s", "85.7%"],
        ["target", "1.00", "CPU", "s", "14.3%"],
    ]


def test_the_demo_of_a_checkout_is_run_by_its_own_code(tmp_path: Path) -> None:
    """A study without the named field is refused by the command, with its exit code."""
    with pytest.raises(subprocess.CalledProcessError) as failed:
        demo.run(demo.HERE, tmp_path / "out", ["target.colour=red"])
    assert failed.value.returncode == 2
    assert not (tmp_path / "out").exists()


def test_a_study_is_forecast_by_what_the_others_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"one": {}, "other": {"target.recipe.epochs": 2, "target.seed": 9}}
    cases = {
        name: forecast.Case(str(tiny.write(tmp_path / f"{name}.yaml", {"seed": [0]}, own)))
        for name, own in changes.items()
    }
    monkeypatch.setattr(forecast, "CASES", cases)
    monkeypatch.setattr(sys, "argv", ["forecast", "--folder", str(tmp_path / "stores")])
    forecast.main()
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == [
        "study",
        "stage",
        "stages",
        "forecast",
        "interval",
        "took",
        "factor",
        "unknown",
    ]
    for name in cases:
        rows = {line.split()[1]: line.split()[2:] for line in lines if line.split()[0] == name}
        store = Artifacts(DirectoryBlobs(tmp_path / "stores" / name))
        took = [seconds_of(one) for _, one in published(store) if one and one.stage == "target"]
        known, expected, interval, actual, factor, unknown, *_ = rows["target"]
        assert (known, unknown) == ("1", "0")
        assert float(actual) == pytest.approx(sum(took), abs=0.006)
        assert float(expected) > 0
        low, high = map(float, interval.split(".."))
        assert low <= float(expected) <= high
        assert float(factor) == pytest.approx(sum(took) / float(expected), rel=0.5)
        assert rows["all"][0] == str(sum(int(row[0]) for stage, row in rows.items() if stage != "all"))

"""Spans modules: the path of an accelerator, on a device that is emulated on the CPU, and its benchmark."""

import json
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement

from benchmarks.accelerator import __main__ as command
from benchmarks.accelerator import data, product, replay, several, speed
from benchmarks.accelerator.context import Context
from benchmarks.accelerator.parts import PARTS, Part
from benchmarks.rows import NETWORKS, Place
from orchestrator.config.attacks import ATTACK_SPECS
from orchestrator.config.load import read_study
from orchestrator.sweep.points import expand
from tests.test_floors import ROOT

CASES = Path("tests/emulated_cases.py")
HOUR = 3600.0


@pytest.fixture
def tiny() -> Context:
    """Return the context of a dry run on the CPU."""
    return Context(torch.device("cpu"), time.monotonic() + HOUR, is_tiny=True)


def test_the_path_of_an_accelerator_holds_on_the_emulated_device() -> None:
    command = [sys.executable, "-m", "pytest", str(CASES), "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:]
    number = len(re.findall(r"^def test_", (ROOT / CASES).read_text(encoding="ascii"), flags=re.MULTILINE))
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= number


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["classifier", "classifier, flipped", "hinge prior"])
def test_no_step_of_a_training_waits_on_cuda(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    place = Place(torch.device("cuda"), "bfloat16", 0.02)

    def switch(is_on: bool) -> None:
        torch.cuda.set_sync_debug_mode("error" if is_on else "default")

    try:
        data.watched_fit(data.trainings(place, 32, 48)[name], place.world, switch)
    finally:
        switch(False)


def test_every_row_has_its_rate_and_its_share_of_the_peak(tiny: Context) -> None:
    records = list(speed.rows(tiny))
    assert [record["row"] for record in records] == list(NETWORKS)
    for record in records:
        assert record["share of peak"] > 0.0  # of tiny products, whose rate bounds nothing
        expected = record["images/s"] * record["MFLOP an image"]
        assert expected > 0.0
    assert {record["precision"] for record in records if record["row"] == "gmi-iteration"} == {"float32"}
    iterated = list(speed.iterations(tiny))
    assert [(record["row"], record["batch"]) for record in iterated] == [
        (row, batch) for row in speed.ITERATED for batch in (4, 6)
    ]


def test_data_is_read_from_each_place_and_a_cpu_has_no_waits(tiny: Context) -> None:
    assert [record["images"] for record in data.path(tiny)] == [
        "uint8 on the device",
        "uint8 on the host",
        "float32 on the host",
    ]
    assert list(data.waits(tiny)) == [{"training": "all", "note": "no waits: the CPU is the device"}]


def test_a_killed_training_resumes_with_equal_bytes(tiny: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    monkeypatch.setattr(replay, "KINDS", replay.KINDS[:1])
    monkeypatch.setattr(replay.Folder, "save", lambda folder, data: saved.append(len(data)))
    (record,) = replay.replay(tiny)
    assert saved == []  # by the process that resumes: the one that is killed is another
    assert record["killed by"] == "SIGKILL"
    assert record["checkpoint bytes"] > 0
    assert (record["repeated"], record["resumed"]) == ("equal", "equal")


def test_stacked_inverters_have_the_losses_of_single_ones(tiny: Context) -> None:
    by_way = {record["way"]: record for record in several.inverters(tiny)}
    assert list(by_way) == ["one after the other", "streams", "stacked"]
    assert "skipped" in by_way["streams"]["note"]
    assert by_way["one after the other"]["losses apart"] == 0.0
    assert 0.0 <= by_way["stacked"]["losses apart"] < 1e-3
    assert by_way["stacked"]["pays"] == ("yes" if by_way["stacked"]["ratio"] >= several.PAYS else "no")


def test_processes_share_the_device(tiny: Context) -> None:
    records = list(several.fractions(tiny))
    assert [record["processes"] for record in records] == [1, 2]
    assert records[0]["ratio to one"] == 1.0
    assert records[1]["images/s in all"] > 0.0


def test_the_demo_and_an_attack_run_in_this_process(tiny: Context) -> None:
    first, last = product.demo(tiny)
    assert (first["device"], first["finished"]) == ("cpu", first["trials"])
    assert last == {"note": "no comparison: the CPU is the device"}
    *ends, total = product.attacks(tiny)
    assert [(record["attack"], record["end"]) for record in ends] == [("mia", "finished")]
    assert total["wall seconds"] > 0.0


def test_the_study_of_attacks_has_every_one() -> None:
    points, _ = expand(read_study(product.ATTACKS))
    assert {point.spec.attack.name for point in points} == ATTACK_SPECS.keys()


def test_differences_between_devices_are_judged_by_what_is_tolerated() -> None:
    def trial(name: str, error: float) -> Any:
        metrics = {"inversion/mse_test": error, "target/accuracy": 0.9, "judge/accuracy": 0.8}
        return SimpleNamespace(name=name, metrics=metrics)

    first = [trial("a", 0.10), trial("b", 0.12), trial("c", 0.121)]
    near = [trial("a", 0.102), trial("b", 0.121), trial("c", 0.12)]  # b and c are as close as that
    *metrics, order = product.compared(first, near)
    assert [record["holds"] for record in metrics] == [True, True, True]
    assert metrics[0]["apart"] == pytest.approx(0.02)
    assert order["same order"]
    *metrics, order = product.compared(first, [trial("a", 0.13), trial("b", 0.12), trial("c", 0.121)])
    assert not metrics[0]["holds"]
    assert not order["same order"]


def test_the_demo_on_two_devices_says_that_they_draw_other_dropout_masks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    metrics = {"inversion/mse_test": 0.1, "target/accuracy": 0.9, "judge/accuracy": 0.8}
    record: Any = SimpleNamespace(name="a", metrics=metrics, status="finished")
    monkeypatch.setattr(product, "ran", lambda *parts: ([record], 1.0))
    *_, last = product.demo(Context(torch.device("cuda"), time.monotonic() + HOUR, is_tiny=True))
    assert last == {"note": product.DROPOUT}
    assert "dropout masks come from each device's own generator" in product.DROPOUT


def test_the_command_writes_lines_and_a_table(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "benchmarks.accelerator", "--device", "cpu", "--tiny", "--only", "peak"]
    done = subprocess.run(
        [*line, "--minutes", "30", "--out", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(one) for one in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [record["part"] for record in records] == ["machine", "peak", "peak", "peak"]
    assert records[-1]["status"] == "done"
    table = (tmp_path / "results.md").read_text()
    assert "| precision | TFLOP/s |" in table
    assert table in done.stdout


def test_a_check_names_missing_modules_and_other_versions_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["accelerator", "--check"])
    assert command.main() == 0
    assert capsys.readouterr().out.splitlines() == [
        "all modules are installed",
        "all versions are as pyproject.toml requires",
    ]
    versions = {"torch": "2.8.0+cu128", "numpy": "1.26.4", "matplotlib": "3.11.0rc1"}
    real = command.metadata.version
    monkeypatch.setattr(command.metadata, "version", lambda name: versions.get(name) or real(name))
    missing = Part("speed:peak", 1, ("torch", "no_such_module", "numpy"))
    monkeypatch.setattr(command, "PARTS", {**PARTS, "peak": missing})
    assert command.main() == 1
    first, *others = capsys.readouterr().out.splitlines()
    assert first == "missing modules: no_such_module"
    assert [one.partition("; ")[0] for one in others] == [
        "torch=2.8.0+cu128 is not >=2.14,<2.16",
        "numpy=1.26.4 is not >=2.2",
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("version", "is_fine"), [("2.14.0", True), ("2.15.1+cu132", True), ("2.13.9", False), ("2.16.0", False)]
)
def test_a_version_is_compared_by_its_numbers(version: str, is_fine: bool) -> None:
    assert command.is_allowed(version, ">=2.14,<2.16") is is_fine


def test_parts_need_what_their_modules_import() -> None:
    def required(name: str) -> set[str]:
        wanted = [Requirement(one) for one in metadata.requires(name) or []]
        names = {one.name.lower() for one in wanted if one.marker is None or one.marker.evaluate()}
        return names.union(*map(required, names - {"torch"})) - {"torch"}

    by_module = metadata.packages_distributions()
    for name, part in PARTS.items():
        given = {one.lower() for module in part.needs for one in by_module[module]}
        beside = set().union(*(required(one) for one in given - {"torch"}))
        assert {one.replace("_", "-") for one in beside} <= {one.replace("_", "-") for one in given}, name


def test_a_part_without_its_modules_or_time_is_skipped_and_one_that_raises_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments: Any = SimpleNamespace(device="nowhere", tiny=True)
    missing = Part("speed:peak", 1, ("torch", "no_such_module"))
    monkeypatch.setattr(command, "PARTS", {**PARTS, "peak": missing})
    (end,) = command.part_records("peak", ["peak"], time.monotonic() + HOUR, arguments)
    assert (end["status"], end["reason"]) == ("skipped", "needs no_such_module")
    (end,) = command.part_records("rows", ["rows", "attacks"], time.monotonic() + 6.0, arguments)
    assert (end["status"], end["reason"]) == ("skipped", "3 s are left for it")
    (end,) = command.part_records("data", ["data"], time.monotonic() + HOUR, arguments)
    assert end["status"] == "failed"
    assert "nowhere" in end["reason"]
    text = command.markdown([{"part": "data", "way": "a", "images/s": 1234.5}, {**end, "part": "data"}])
    assert "| way | images/s |\n| --- | --- |\n| a | 1234 |" in text

"""The plan: a forecast from few manifests, however many the store has; how far a sweep is, in a log."""

import re
import tempfile
import time
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from jobs import printing
from jobs.printing import print_plan
from orchestrator.api.forecast import OTHERS_READ, STAGE_READ, Known, forecast
from orchestrator.config.normalise import normalise
from orchestrator.datasets import Description, Footprint, Labels, Location
from orchestrator.datasets.weights_manifest import key_of
from orchestrator.stages.graph import Planner, Stage
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.journal import Journal
from orchestrator.store.requests import RequestFolder
from orchestrator.sweep.image_counts import ImageCounts
from orchestrator.sweep.points import expand
from orchestrator.sweep.requests import Requests, Size
from orchestrator.sweep.trial import Task
from tests import tiny


class Counted(DirectoryBlobs):
    """A folder that counts the manifests read from it."""

    read = 0

    def get(self, name: str) -> bytes | None:
        self.read += name.endswith("manifest.json")
        return super().get(name)


def publish(store: Artifacts, stage: Stage, cpu_seconds: float, images: float, key: str = "") -> None:
    """Publish a stage as having taken some CPU seconds and seen some images."""
    artifact = Artifact(
        key=key or stage.key,
        stage=stage.name,
        version=stage.version,
        spec=dict(stage.specs),
        cost={"cpu_seconds": cpu_seconds, "images_seen": images},
        profile=dict(stage.profile),
    )
    store.publish(artifact, {})


def printed(
    tasks: list[Task],
    capsys: pytest.CaptureFixture[str],
    sets: Mapping[str, Footprint],
    store: Artifacts | None = None,
    rate: float | None = None,
) -> str:
    """Return the printed plan of trials on sets of these sizes."""
    counts = ImageCounts(Location(), {name: described(name, sets[name].num_images) for name in sets})
    labels = Labels(np.arange(60) % 5, {"default": (np.arange(60) // 5 % 3).astype(np.uint8)})
    for name in sets:
        counts.stand_in(name, labels)
    kept = store or Artifacts(DirectoryBlobs(Path(tempfile.mkdtemp())))
    expected = forecast(tasks, kept, Known(sets, counts))
    print_plan(Console(width=160), tiny.study({"seed": [0]}), tasks, [], expected, rate)
    return capsys.readouterr().out


def described(name: str, num_images: int) -> Description:
    """Return a set of five classes."""
    names = tuple(f"{name}/{place}" for place in range(5))
    return Description(name, "0" * 64, "", num_images, 5, (8, 8, 1), ("default",), names)


def test_a_forecast_reads_few_manifests_and_gives_intervals_and_a_price(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planner = Planner({"digits": "0" * 64}, tiny.PROFILE)
    points = expand(tiny.study({"seed": list(range(60))}))[0]
    tasks = [Task(point, planner.plan(normalise(point.spec))) for point in points]
    blobs = Counted(tmp_path)
    store = Artifacts(blobs)
    for task in tasks[:50]:
        publish(store, task.stages["target"], 3.0, 11.0)  # of the 12 images of three classes
    for number in range(OTHERS_READ + 50):
        publish(store, tasks[0].stages["inversion"], 50.0, 57.6, f"{number:064x}")
    blobs.read = 0
    text = printed(tasks, capsys, {"digits": Footprint(1536, 2**20, False)}, store, rate=2.5)
    assert blobs.read <= STAGE_READ + OTHERS_READ
    assert "study tiny: 60 points" in text
    assert f"  {tasks[0].point.name}\n  {tasks[1].point.name}\n" in text
    table = rows(text)
    assert table["target"][:5] == ["60", "50", "10", "2.5 MiB", "0.0 MiB"]
    assert re.fullmatch(r"30 \(2\d\.\.3\d\)", table["target"][-1])
    assert re.fullmatch(r"3,\d{3} \(2,\d{3}\.\.3,\d{3}\)", table["inversion"][-1])
    assert table["evaluation"][:3] + table["evaluation"][-1:] == ["60", "0", "60", "unknown"]
    (line,) = [line for line in text.splitlines() if line.startswith("forecast: ")]
    assert re.match(r"forecast: about 3,\d{3} \(2,\d{3}\.\.3,\d{3}\) CPU seconds, by the rates of", line)
    assert "beside that unknown: 60 victims, 60 predictions" in line
    assert line.endswith("measure one step of each with --calibrate")
    assert re.search(r"price: about 2\.\d\d \(.*\) at 2.5 for a device hour, without what is unknown", text)


def rows(printed: str) -> dict[str, list[str]]:
    """Return stage -> the other cells of its row in a printed plan."""
    lines = [line for line in printed.splitlines() if "│" in line]
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]
    return {row[0]: row[1:] for row in cells}


def test_a_plan_gives_the_memory_of_the_image_sets_of_each_stage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    changes = {"auxiliary": {"kind": "distinct", "dataset": "faces"}, "target.pretrain.dataset": "faces"}
    study = tiny.study({"auxiliary.size": [64, 32]}, changes)
    planner = Planner({"digits": "0" * 64, "faces": "1" * 64}, tiny.PROFILE)
    tasks = [Task(point, planner.plan(normalise(point.spec))) for point in expand(study)[0]]
    sets = {"digits": Footprint(2048, 2**20, False), "faces": Footprint(2**20, 5 * 2**30, True)}
    text = printed(tasks, capsys, sets)
    memory = {stage: tuple(cells[3:5]) for stage, cells in rows(text).items()}
    public, private = ("1.0 GiB", "5.0 GiB"), ("3.0 MiB", "0.0 MiB")  # at 32x32 in grey, 1 KiB for an image
    assert memory == {
        **dict.fromkeys(("pretrain", "predictions", "inversion", "yardsticks", "retrieval"), public),
        **dict.fromkeys(("target", "judge", "victims", "evaluation"), private),
        "reconstructions": ("0.0 MiB", "0.0 MiB"),
    }
    words = "holds about 1.0 GiB of images; sets above 1.0 GiB, at most 5.0 GiB for a stage, are mapped from"
    assert words in " ".join(text.split())


def test_images_read_a_batch_at_a_time_are_not_held(
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = tiny.study({"seed": [0]})
    planner = Planner({"digits": "0" * 64}, tiny.PROFILE)
    tasks = [Task(point, planner.plan(normalise(point.spec))) for point in expand(study)[0]]
    sets = {"digits": Footprint(2**22, 498 * 2**30, True)}  # 4 GiB at 32x32; of a part of a split 1 GiB
    text = printed(tasks, capsys, sets)
    assert rows(text)["judge"][3:5] == ["3.0 GiB", "498.0 GiB"]


def test_a_set_in_two_roles_is_loaded_once(capsys: pytest.CaptureFixture[str]) -> None:
    study = tiny.study({"seed": [0]}, {"target.pretrain.dataset": "digits"})
    planner = Planner({"digits": "0" * 64}, tiny.PROFILE)
    tasks = [Task(point, planner.plan(normalise(point.spec))) for point in expand(study)[0]]
    text = printed(tasks, capsys, {"digits": Footprint(1024, 2**20, False)})
    assert rows(text)["pretrain"][3] == "2.0 MiB"
    assert "memory: each worker holds about 2.0 MiB of images; in all about 70" in text


def test_equal_stages_of_many_trials_are_one_object() -> None:
    planner = Planner({"digits": "0" * 64}, tiny.PROFILE)
    points = expand(tiny.study({"release.truncation": [1, 2], "attack.seed": [0, 1]}))[0]
    planned = [planner.plan(normalise(point.spec)) for point in points]
    assert len({id(stages["target"]) for stages in planned}) == 1
    stages: dict[str, set[int]] = {}
    for one in (stage for trial in planned for stage in trial.values()):
        assert isinstance(one, Stage)
        stages.setdefault(one.key, set()).add(id(one))
    assert all(len(objects) == 1 for objects in stages.values())


def test_the_plan_counts_points_on_held_images(capsys: pytest.CaptureFixture[str]) -> None:
    planner = Planner({"digits": "0" * 64}, tiny.PROFILE)
    study = tiny.study({"auxiliary.kind": ["same-heldout", "same-test", "same-train"], "seed": [0, 1]})
    tasks = [Task(point, planner.plan(normalise(point.spec))) for point in expand(study)[0]]
    text = printed(tasks, capsys, {"digits": Footprint(0, 0, False)})
    lines = [line for line in text.splitlines() if line.startswith("held")]
    own = "held: 2 of 6 points read images that the adversary held ({})"
    assert lines == [own.format("test"), own.format("train")]


def test_a_program_has_no_budget_to_print(capsys: pytest.CaptureFixture[str]) -> None:
    """Its network is none of ours, whose parameters are known without torch."""
    study = tiny.study({"attack.seed": [0, 1]}, {"target": {"classes": 3, "program": "net"}})
    planner = Planner({"digits": "0" * 64, key_of("net"): "1" * 64}, tiny.PROFILE)
    tasks = [Task(point, planner.plan(normalise(point.spec))) for point in expand(study)[0]]
    text = printed(tasks, capsys, {"digits": Footprint(1024, 2**20, False)})
    assert text.count("target.program=net: F as it is, nothing of it trains\n") == 1
    assert "budget" not in text
    assert rows(text)["given"][:3] == ["1", "0", "1"]


def test_a_plan_of_a_search_is_of_its_first_batch_and_offers_no_measuring_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planner = Planner({"digits": "0" * 64}, tiny.PROFILE)
    tasks = [
        Task(point, planner.plan(normalise(point.spec))) for point in expand(tiny.study({"seed": [0]}))[0]
    ]
    counts = ImageCounts(Location(), {"digits": described("digits", 60)})
    labels = Labels(np.arange(60) % 5, {"default": (np.arange(60) // 5 % 3).astype(np.uint8)})
    counts.stand_in("digits", labels)
    known = Known({"digits": Footprint(60, 2**20, False)}, counts)
    expected = forecast(tasks, Artifacts(DirectoryBlobs(tmp_path)), known)
    study = tiny.study({"seed": [0]}, search={"algorithm": "optuna"})
    print_plan(Console(width=160), study, tasks, [], expected, is_measured=True)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("forecast")]
    assert line.startswith("forecast of the first batch of 1 trials: unknown, the store has nothing like")
    assert "--calibrate" not in line


def test_the_log_of_a_job_says_how_far_stages_are_where_no_trial_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(printing, "SILENT_SECONDS", 0.05)
    blobs, size, text = DirectoryBlobs(tmp_path), Size(), StringIO()
    journal = Journal(blobs, "ab" * 32)
    requests = Requests(RequestFolder(blobs, "ab" * 32, journal.attempt), journal, size, print)
    progress = printing.SweepProgress(Console(file=text, width=300), "inversion/skill_test", True)
    progress.follow(requests)
    with progress:
        for epoch in (1, 2):
            size.building = (f"prior (epoch {epoch} of 40)",)
            end = time.monotonic() + 20
            while f"epoch {epoch}" not in text.getvalue():
                assert time.monotonic() < end
                time.sleep(0.01)
        time.sleep(0.3)
    lines = [line.partition(" ")[2] for line in text.getvalue().splitlines()]
    assert lines == [f"0/0 stages, 0/0 trials: building prior (epoch {epoch} of 40)" for epoch in (1, 2)]

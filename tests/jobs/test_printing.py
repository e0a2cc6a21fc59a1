"""The plan: a forecast from few manifests, however many the store has."""

from pathlib import Path

import pytest
from rich.console import Console

from jobs.printing import print_plan
from orchestrator.api.forecast import OTHERS_READ, STAGE_READ
from orchestrator.config.normalise import normalise
from orchestrator.datasets import Footprint
from orchestrator.datasets.weights_manifest import key_of
from orchestrator.stages.graph import Planner, Stage
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.sweep.points import expand
from orchestrator.sweep.trial import Task
from tests import tiny


class Counted(DirectoryBlobs):
    """A folder that counts the manifests read from it."""

    read = 0

    def get(self, name: str) -> bytes | None:
        self.read += name.endswith("manifest.json")
        return super().get(name)


def publish(store: Artifacts, key: str, stage: str, cpu_seconds: float) -> None:
    store.publish(
        Artifact(
            key=key,
            stage=stage,
            version=1,
            spec={},
            inputs={},
            metrics={},
            cost={"cpu_seconds": cpu_seconds},
            profile={},
            code_version="0",
            created_ms=0,
        ),
        {},
    )


def test_a_forecast_reads_few_manifests_and_takes_medians(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tiny.study({"seed": list(range(60))})
    planner = Planner({"digits": "0" * 64}, tiny.PROFILE)
    tasks = [Task(point, planner.plan(normalise(point.spec))) for point in expand(study)[0]]
    blobs = Counted(tmp_path)
    store = Artifacts(blobs)
    for task in tasks[:50]:
        publish(store, task.stages["target"].key, "target", 3.0)
    for number in range(OTHERS_READ + 50):
        publish(store, f"{number:064x}", "inversion", 5.0)
    blobs.read = 0
    print_plan(Console(width=160), study, tasks, [], store, {"digits": Footprint(1536, 2**20, False)})
    printed = capsys.readouterr().out
    assert blobs.read <= STAGE_READ + OTHERS_READ
    assert "study tiny: 60 points" in printed
    assert f"  {tasks[0].point.name}\n  {tasks[1].point.name}\n" in printed
    table = rows(printed)
    assert table["target"] == ["60", "50", "10", "2.5 MiB", "0.0 MiB", "about 30"]
    assert table["inversion"] == ["60", "0", "60", "2.5 MiB", "0.0 MiB", "about 300"]
    assert table["evaluation"] == ["60", "0", "60", "2.5 MiB", "0.0 MiB", "unknown"]
    assert "forecast: about 330 CPU seconds, from the medians of this store" in printed


def rows(printed: str) -> dict[str, list[str]]:
    """Return stage -> the other cells of its row in a printed plan."""
    lines = [line for line in printed.splitlines() if "│" in line]
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]
    return {row[0]: row[1:] for row in cells}


def test_a_plan_gives_the_memory_of_the_image_sets_of_each_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"auxiliary": {"kind": "distinct", "dataset": "faces"}, "target.pretrain.dataset": "faces"}
    study = tiny.study({"auxiliary.size": [64, 32]}, changes)
    planner = Planner({"digits": "0" * 64, "faces": "1" * 64}, tiny.PROFILE)
    tasks = [Task(point, planner.plan(normalise(point.spec))) for point in expand(study)[0]]
    sets = {"digits": Footprint(2048, 2**20, False), "faces": Footprint(2**20, 5 * 2**30, True)}
    print_plan(Console(width=160), study, tasks, [], Artifacts(DirectoryBlobs(tmp_path)), sets)
    printed = capsys.readouterr().out
    memory = {stage: tuple(cells[3:5]) for stage, cells in rows(printed).items()}
    public, private = ("1.0 GiB", "5.0 GiB"), ("3.0 MiB", "0.0 MiB")  # at 32x32 in grey, 1 KiB for an image
    assert memory == {
        **dict.fromkeys(("pretrain", "predictions", "inversion", "yardsticks", "retrieval"), public),
        **dict.fromkeys(("target", "judge", "victims", "evaluation"), private),
        "reconstructions": ("0.0 MiB", "0.0 MiB"),
    }
    words = "holds about 1.0 GiB of images; sets above 1.0 GiB, at most 5.0 GiB for a stage, are mapped from"
    assert words in " ".join(printed.split())


def test_images_read_a_batch_at_a_time_are_not_held(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tiny.study({"seed": [0]})
    planner = Planner({"digits": "0" * 64}, tiny.PROFILE)
    tasks = [Task(point, planner.plan(normalise(point.spec))) for point in expand(study)[0]]
    sets = {"digits": Footprint(2**22, 498 * 2**30, True)}  # 4 GiB at 32x32; of a part of a split 1 GiB
    print_plan(Console(width=160), study, tasks, [], Artifacts(DirectoryBlobs(tmp_path)), sets)
    assert rows(capsys.readouterr().out)["judge"][3:5] == ["3.0 GiB", "498.0 GiB"]


def test_a_set_in_two_roles_is_loaded_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = tiny.study({"seed": [0]}, {"target.pretrain.dataset": "digits"})
    planner = Planner({"digits": "0" * 64}, tiny.PROFILE)
    tasks = [Task(point, planner.plan(normalise(point.spec))) for point in expand(study)[0]]
    print_plan(
        Console(width=160),
        study,
        tasks,
        [],
        Artifacts(DirectoryBlobs(tmp_path)),
        {"digits": Footprint(1024, 2**20, False)},
    )
    printed = capsys.readouterr().out
    assert rows(printed)["pretrain"][3] == "2.0 MiB"
    assert "memory: each worker holds about 2.0 MiB of images\n" in printed


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


def test_the_plan_counts_points_on_held_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planner = Planner({"digits": "0" * 64}, tiny.PROFILE)
    study = tiny.study({"auxiliary.kind": ["same-heldout", "same-test", "same-train"], "seed": [0, 1]})
    tasks = [Task(point, planner.plan(normalise(point.spec))) for point in expand(study)[0]]
    print_plan(
        Console(width=160),
        study,
        tasks,
        [],
        Artifacts(DirectoryBlobs(tmp_path)),
        {"digits": Footprint(0, 0, False)},
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("held")]
    own = "held: 2 of 6 points read images that the adversary held ({})"
    assert lines == [own.format("test"), own.format("train")]


def test_a_program_has_no_budget_to_print(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its network is none of ours, whose parameters are known without torch."""
    study = tiny.study({"attack.seed": [0, 1]}, {"target": {"classes": 3, "program": "net"}})
    planner = Planner({"digits": "0" * 64, key_of("net"): "1" * 64}, tiny.PROFILE)
    tasks = [Task(point, planner.plan(normalise(point.spec))) for point in expand(study)[0]]
    store, sets = Artifacts(DirectoryBlobs(tmp_path)), {"digits": Footprint(1024, 2**20, False)}
    print_plan(Console(width=160), study, tasks, [], store, sets)
    printed = capsys.readouterr().out
    assert printed.count("target.program=net: F as it is, nothing of it trains\n") == 1
    assert "budget" not in printed
    assert rows(printed)["given"][:3] == ["1", "0", "1"]

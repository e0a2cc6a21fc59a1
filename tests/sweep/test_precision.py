"""The precision of trainings that resources leave open: the rule, what is kept of it, and its words."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from orchestrator.config.normalise import normalise
from orchestrator.config.resources import Resources
from orchestrator.stages.graph import STAGES, Planner, Stage
from orchestrator.store.blobs import Blobs
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.journal import Journal
from orchestrator.sweep.precision import LEAST_WIDTH, NO_NODE, Precisions, Units, faster, joined, read_units
from orchestrator.sweep.profiles import profile_of, profiles_of
from tests import tiny

AMX, AVX2 = Units(True, "amx_bf16"), Units(False, "neither")
WIDE = {"target.model.width": LEAST_WIDTH}


def nothing() -> Mapping[str, Units]:
    """Return what the journal of a sweep has that was never started."""
    return {}


def only(**found: Units) -> Callable[[str], Units]:
    """Return what finds these devices, each once."""
    return found.pop


def precisions(settings: dict[str, Any] | None = None, **found: Units) -> Precisions:
    """Return those of a sweep that was never started."""
    return Precisions(Resources.model_validate(settings or {}), only(**found), nothing)


def planned(chosen: Precisions, settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Stage]:
    """Return the stages of the tiny trial."""
    resources = Resources.model_validate(settings)
    planner = Planner({"digits": "d"}, profile_of(resources), profiles_of(resources), chosen.choose)
    return planner.plan(normalise(tiny.spec(changes)))


def in_bfloat16(stages: Mapping[str, Stage]) -> set[str]:
    """Return the stages that train in bfloat16."""
    return {name for name, stage in stages.items() if stage.profile["precision"] == "bfloat16"}


@pytest.mark.parametrize(
    ("widths", "units", "precision"),
    [
        ([1.0], AMX, "bfloat16"),
        ([LEAST_WIDTH], AMX, "bfloat16"),
        ([1.0], AVX2, "float32"),
        ([1 / 16], AMX, "float32"),
        ([1.0, 1 / 16], AMX, "float32"),  # the narrow one would cost what the wide one saves
    ],
)
def test_bfloat16_is_faster_for_wide_networks_with_matrix_units(
    widths: list[float], units: Units, precision: str
) -> None:
    assert faster(widths, lambda: units.are_there) == precision


@pytest.mark.parametrize(
    ("machines", "shared"),
    [
        ([], Units(False, NO_NODE)),
        ([AMX], AMX),
        ([AMX, AMX], Units(True, "2 nodes: amx_bf16")),
        ([AMX, Units(True, "avx512_bf16")], Units(True, "2 nodes: amx_bf16, avx512_bf16")),
        ([AMX, AVX2, AMX], Units(False, "1 of 3 nodes: neither")),
    ],
)
def test_a_cluster_has_what_all_of_its_nodes_have(machines: list[Units], shared: Units) -> None:
    assert joined(machines) == shared


def test_each_training_has_its_own_precision_and_what_trains_nothing_float32() -> None:
    stages = planned(precisions(cpu=AMX), {}, WIDE)
    assert in_bfloat16(stages) == {"pretrain", "target"}  # the judge and the inverter are narrow
    assert {stage.profile["precision"] for stage in stages.values()} == {"float32", "bfloat16"}
    every = {f"{role}.model.width": 0.5 for role in ("target", "attack", "judge")}
    wide = planned(precisions(cpu=AMX), {}, every)
    assert in_bfloat16(wide) == {"pretrain", "target", "judge", "inversion"}
    assert in_bfloat16(planned(precisions(cpu=AVX2), {}, every)) == set()


def test_a_precision_that_is_set_has_the_keys_that_it_had() -> None:
    """On every device, and also where it is set for single stages."""
    chosen = precisions()  # finds nothing: asking would fail
    for precision in ("float32", "bfloat16"):
        stages = planned(chosen, {"precision": precision}, WIDE)
        assert {stage.profile["precision"] for stage in stages.values()} == {precision}
    own = {"precision": "float32", "stages": {"judge": {"precision": "bfloat16"}}}
    assert in_bfloat16(planned(chosen, own, WIDE)) == {"judge"}
    assert chosen.words == ""
    without = {name: stage.key for name, stage in planned(precisions(cpu=AVX2), {}, WIDE).items()}
    assert without == {name: one.key for name, one in planned(chosen, {"precision": "float32"}, WIDE).items()}


def test_a_stage_may_leave_open_what_the_others_have_set() -> None:
    settings = {"precision": "bfloat16", "stages": {"target": {"precision": "auto"}}}
    stages = planned(precisions(cpu=AVX2), settings, WIDE)
    assert in_bfloat16(stages) == stages.keys() - {"target"}


def test_stages_on_accelerators_are_chosen_for_these() -> None:
    chosen = precisions(cuda=Units(True, "compute capability 9.0"), cpu=AVX2)
    settings = {"stages": {"target": {"gpus_per_worker": 1.0}}}
    assert in_bfloat16(planned(chosen, settings, WIDE)) == {"target"}
    assert chosen.words == "precision: float32 on cpu (neither), bfloat16 on cuda (compute capability 9.0)"


def test_no_device_is_looked_at_for_narrow_networks() -> None:
    chosen = precisions()
    assert in_bfloat16(planned(chosen, {}, {})) == set()
    assert chosen.words == "precision: float32 (every network that trains is narrower than 0.25)"


def test_every_stage_with_an_optimiser_names_the_networks_that_it_trains() -> None:
    trained = {name for name, kind in STAGES.items() if kind.trains}
    assert trained == {
        *("pretrain", "target", "joint", "judge", "prior", "student", "surrogate", "inversion"),
    }
    assert all(set(kind.trains) <= set(kind.reads) for kind in STAGES.values())


@pytest.fixture
def blobs(tmp_path: Any) -> Blobs:
    return DirectoryBlobs(tmp_path / "store")


def started(blobs: Blobs, **found: Units) -> Precisions:
    """Plan a start of one sweep on a machine that has these devices, and keep what it found."""
    chosen = Precisions(Resources(), only(**found), lambda: read_units(Journal(blobs, "k")))
    planned(chosen, {}, WIDE)
    with Journal(blobs, "k") as journal:
        chosen.keep(journal)
    return chosen


def test_later_starts_on_other_machines_go_on_as_the_sweep_began(blobs: Blobs) -> None:
    first = started(blobs, cpu=AMX)
    assert first.words == "precision: bfloat16 on cpu (amx_bf16; float32 below width 0.25)"
    assert first.warnings() == []
    again = started(blobs, cpu=AVX2)
    assert again.words == (
        "precision: bfloat16 on cpu (as this sweep began, amx_bf16; float32 below width 0.25)"
    )
    (warning,) = again.warnings()
    assert warning.startswith(
        "warning: this sweep began in bfloat16, for which cpu has no matrix units here: neither (steps took "
    )
    assert warning.endswith("; set resources.precision=float32, which changes keys.")
    assert read_units(Journal(blobs, "k")) == {"cpu": AMX}


def test_a_sweep_that_began_in_float32_stays_in_it(blobs: Blobs) -> None:
    started(blobs, cpu=AVX2)
    again = started(blobs, cpu=AMX)
    assert again.words == "precision: float32 on cpu (as this sweep began, neither)"
    assert again.warnings() == []


def test_what_is_found_after_the_start_is_kept_too(blobs: Blobs) -> None:
    chosen = Precisions(Resources(), only(cpu=AMX), nothing)
    with Journal(blobs, "k") as journal:
        chosen.keep(journal)
        planned(chosen, {}, WIDE)
        assert read_units(Journal(blobs, "k")) == {"cpu": AMX}


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"precision": "bfloat16"}, "resources.precision"),
        ({"stages": {"judge": {"precision": "bfloat16"}}}, "resources.stages.judge.precision"),
    ],
)
def test_bfloat16_without_matrix_units_is_warned_of(settings: dict[str, Any], field: str) -> None:
    assert precisions(settings, cpu=AMX).warnings() == []
    (warning,) = precisions(settings, cpu=AVX2).warnings()
    assert warning.startswith(f"warning: {field}=bfloat16, for which cpu has no matrix units here: neither")
    assert warning.endswith(f"; set {field}=float32, which changes keys.")


def test_nodes_that_have_still_to_join_are_not_warned_of() -> None:
    settings = {"precision": "bfloat16", "gpus_per_worker": 1.0}
    assert precisions(settings, cuda=joined([])).warnings() == []


def test_stages_that_train_nothing_are_not_warned_of() -> None:
    assert precisions({"stages": {"evaluation": {"precision": "bfloat16"}}}).warnings() == []


def test_an_old_accelerator_is_warned_of_without_a_figure() -> None:
    settings = {"precision": "bfloat16", "gpus_per_worker": 1.0}
    (warning,) = precisions(settings, cuda=Units(False, "compute capability 7.0")).warnings()
    assert warning == (
        "warning: resources.precision=bfloat16, for which cuda has no matrix units here: compute capability "
        "7.0; set resources.precision=float32, which changes keys."
    )

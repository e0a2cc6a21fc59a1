"""Spans modules: every study of a paper runs at its smoke scale, on bundled data, and writes its report."""

import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from jobs import report, stage_weights, sweep
from orchestrator.config import Data, TrialSpec
from orchestrator.config.base import Scalar
from orchestrator.config.load import read_study, scales_of
from orchestrator.config.report import Ordering, Report
from orchestrator.config.study import Study
from orchestrator.datasets import Location, load
from orchestrator.datasets.selection import judge_images
from orchestrator.models.budgets import resolve_budget
from orchestrator.sweep.adversary import held_parts, held_words
from orchestrator.sweep.points import expand
from orchestrator.sweep.study_checks import check_report
from tests.stages.test_given import trained
from tests.test_floors import ROOT

TL_DMI = sorted(path.stem for path in sweep.STUDIES.glob("tl-dmi-*.yaml"))
STUDIES = [
    *sorted(path.stem for path in sweep.STUDIES.glob("ami-*.yaml")),
    *TL_DMI,
    "defenses-2026",
    "bido-search",
    "given-service",
    "given-target",
    "given-program",
]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for all studies: they share the store, and with it judges and targets."""
    return tmp_path_factory.mktemp("studies")


def study_at(name: str, scale: str | None) -> Study:
    """Return a study at one of its scales; None is the paper's."""
    return read_study(sweep.STUDIES / f"{name}.yaml", scale=scale)


def promised(asked: Report) -> set[str]:
    """Return the files that a report leaves because its study asks for them."""
    tables = {
        "comparison": asked.printed,
        "orderings": asked.orderings,
        "delta": asked.delta,
        "costs": asked.costs,
    }
    pictures = [f"curve-{one.name}" for one in asked.curves]
    pictures += [f"histogram-{one.name}" for one in asked.histograms]
    files = {f"{name}.csv" for name, part in tables.items() if part}
    files |= {f"{name}.{end}" for name in pictures for end in ("csv", "png")}
    return files | {"figure.png"} if asked.rows else files


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_runs_and_reports(name: str, out: Path) -> None:
    arguments = [name, "--scale", "smoke", "--local", "--ship-later", "--out", str(out)]
    done = CliRunner().invoke(sweep.app, arguments)
    assert done.exit_code == 0, done.output
    table = pd.read_csv(out / f"{name}.smoke" / "results.csv")
    assert set(table["status"]) == {"finished"}
    study = study_at(name, "smoke")
    asked, held = study.report, [held_words(held_parts(point.spec)) for point in expand(study)[0]]
    assert (table["held"].fillna("").tolist() if any(held) else held) == held
    assert set(asked.metrics) <= set(table.columns)
    left = {path.name for path in (out / f"{name}.smoke").iterdir()}
    assert promised(asked) <= left
    for picture in (name for name in left if name.endswith(".png")):
        with Image.open(out / f"{name}.smoke" / picture) as image:
            assert min(image.size) > 60
    if asked.orderings:
        verdicts = pd.read_csv(out / f"{name}.smoke" / "orderings.csv")
        assert set(verdicts["verdict"]) <= {"holds", "reversed", "not shown", "equal"}
    if asked.costs:
        assert pd.read_csv(out / f"{name}.smoke" / "costs.csv")["wall_ratio"].notna().all()


def test_a_given_target_is_attacked_at_the_smoke_scale(out: Path, tmp_path: Path) -> None:
    """The shipped study with weights that others trained: in the order of their names, with no training."""
    digits = load("digits", Location())
    images = judge_images(digits, Data(dataset="digits"), "train")
    torch.save(trained(images).state_dict(), tmp_path / "theirs.pt")
    (tmp_path / "names.txt").write_text("\n".join(digits.class_names), encoding="utf-8")
    data = str(tmp_path / "data")
    staging = [
        str(tmp_path / "theirs.pt"),
        data,
        "--name",
        "theirs",
        "--classes",
        str(tmp_path / "names.txt"),
    ]
    assert CliRunner().invoke(stage_weights.app, staging).exit_code == 0
    settings = ["target.weights=theirs", "target.minimum_accuracy=0.5", "data.class_order=weights"]
    arguments = [
        "given-target",
        "--scale",
        "smoke",
        "--local",
        "--ship-later",
        "--out",
        str(tmp_path / "out"),
    ]
    arguments += ["--store", str(out / "store"), "--data", data]
    done = CliRunner().invoke(sweep.app, [*arguments, *(part for one in settings for part in ("--set", one))])
    assert done.exit_code == 0, done.output
    (file,) = (tmp_path / "out").glob("given-target.smoke.*/results.csv")
    table = pd.read_csv(file)
    assert set(table["status"]) == {"finished"}
    assert len(table) == 6
    assert table["target/accuracy"].nunique() == 1
    assert table["target/accuracy"].min() > 0.5
    assert "target/best_epoch" not in table.columns


DIGITS = {"mnist", "mnist-small", "mnist-equal", "digits"}
"""Data sets whose classes are the ten digits."""


@pytest.mark.parametrize("name", [*STUDIES, "demo"])
def test_digits_are_held_fixed_and_people_are_resampled(name: str) -> None:
    """At every scale but `smoke`, which replaces people by digits to be quick."""
    own = [scale for scale in scales_of(sweep.STUDIES / f"{name}.yaml") if scale != "smoke"]
    for scale in (None, *own):
        study = study_at(name, scale)
        sets = {point.spec.data.dataset for point in expand(study)[0][:1]}
        assert study.report.population == (sets <= DIGITS), scale


TWINS = ["ami-truncation", "ami-prediction-size", "ami-baselines", "ami-losses", "ami-release"]
"""Studies whose paper tests the inverter on the images that it is trained on (AMI, Table I)."""

LESS_HELD = {"ami-baselines", "ami-losses"}
"""Those that ask less of held images, or nothing, at the small scale."""


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("scale", [None, "small"])
def test_headlines_are_of_images_that_the_adversary_did_not_hold(name: str, scale: str | None) -> None:
    study = study_at(name, scale)
    points, _ = expand(study)
    owning = [point for point in points if point.spec.attack.has_images]
    held = {point.axes["auxiliary"]: held_parts(point.spec) for point in owning}
    is_less = scale == "small" and name in LESS_HELD
    assert held == {"same-heldout": ()} | (
        {} if is_less and name == "ami-baselines" else {"same-test": ("test",)}
    )
    assert study.report.where["auxiliary"] == "same-heldout"
    first, *others = study.report.orderings
    headlines = [(one.claim, one.metric) for one in (first, *others) if _kind(one) == "same-heldout"]
    assert (first.claim, first.metric) in headlines
    for one in others:
        is_twin = one.axis == "auxiliary" or (one.claim, one.metric) in headlines
        assert is_twin, one
    kinds = [point.axes["auxiliary"] for point in owning if point.axes["data.split"] == "default"]
    assert is_less or kinds.count("same-heldout") == kinds.count("same-test")
    assert kinds.count("same-heldout") >= kinds.count("same-test")
    assert kinds.count("same-heldout") > 0
    allocations = {(point.axes["data.split"], point.axes["auxiliary"]) for point in owning}
    assert (("half", "same-test") in allocations) == (scale is None)


def _kind(ordering: Ordering) -> Scalar | None:
    """Return the auxiliary kind that an ordering is restricted to."""
    return ordering.where.get("auxiliary")


def test_a_report_is_rebuilt_byte_for_byte_without_training(out: Path) -> None:
    name = "ami-truncation"
    test_a_study_runs_and_reports(name, out)
    before = {path.name: path.read_bytes() for path in (out / f"{name}.smoke").iterdir()}
    for path in (out / f"{name}.smoke").iterdir():
        path.unlink()
    done = CliRunner().invoke(report.app, [name, "--scale", "smoke", "--ship-later", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert {path.name: path.read_bytes() for path in (out / f"{name}.smoke").iterdir()} == before


def test_every_table_and_figure_of_tl_dmi_s_supplement_has_a_study() -> None:
    wanted = {*(f"tl-dmi-table-{n}" for n in range(1, 14)), *(f"tl-dmi-fig-{n}" for n in range(1, 8))}
    assert set(TL_DMI) >= wanted


@pytest.mark.parametrize("name", TL_DMI)
@pytest.mark.parametrize("scale", [None, "small"])
def test_a_tl_dmi_study_has_the_papers_scale_and_a_small_one(name: str, scale: str | None) -> None:
    study = study_at(name, scale)
    check_report(study)
    points, dropped = expand(study)
    assert not dropped
    seeds = {point.spec.target.seed for point in points}
    assert seeds == {0, 1, 2} or (scale == "small" and 0 in seeds)
    if scale is None:
        assert {point.spec.target.model.width for point in points} == {1.0}
    targets = {_shape(point.spec): point.spec for point in points}
    for spec in targets.values():  # every budget is one of its network's
        data, f = spec.data, spec.target
        cut = resolve_budget(
            f.model, f.budget, classes=f.classes, channels=data.channels, image_size=data.image_size
        )
        assert (cut == "full") == (f.budget == "full")
        assert cut == "full" or f.pretrain or f.freezes_random


@pytest.mark.parametrize("name", TL_DMI)
def test_a_printed_number_and_an_order_name_settings_of_the_papers_scale(name: str) -> None:
    study = study_at(name, None)
    values = {axis: set(map(str, found)) for axis, found in study.axes().items()}
    for printed in study.report.printed:
        assert all(str(value) in values[axis] for axis, value in printed.where.items())
        assert printed.source.startswith("TL-DMI, ")
    for ordering in study.report.orderings:
        assert {str(value) for value in ordering.order} <= values[ordering.axis]
        assert all(str(value) in values[axis] for axis, value in ordering.where.items())


STAGING = re.compile(r"^ *# (python -m jobs\.stage_data .* --name (\S+) .*)$", re.MULTILINE)
"""A command in a study's comments, and the name that it stages."""


@pytest.mark.parametrize("name", TL_DMI)
def test_a_tl_dmi_study_says_how_its_sets_are_staged(name: str) -> None:
    documented = (ROOT / "docs" / "studies.md").read_text(encoding="ascii").splitlines()
    files = [sweep.STUDIES / f"{name}.yaml", sweep.STUDIES / "common" / "tl-dmi.yaml"]
    said = [found for file in files for found in STAGING.findall(file.read_text(encoding="ascii"))]
    staged = {staged: command for command, staged in said}
    assert set(staged.values()) <= set(documented)
    specs = [point.spec for point in expand(study_at(name, None))[0]]
    for spec in specs:
        assert f"--split {spec.data.split}=" in staged[spec.data.dataset]
        assert f"--size {spec.data.image_size} " in staged[spec.data.dataset]
        assert spec.auxiliary.dataset in staged
        assert spec.target.selection == "test"
    small = [point.spec for scale in ("small", "smoke") for point in expand(study_at(name, scale))[0]]
    assert {(spec.target.selection, spec.data.split) for spec in small} <= {
        ("held-out", "eighty"),
        ("held-out", "default"),
    }


@pytest.mark.parametrize(
    ("staged", "crop"),
    [
        ("celeba-private", "35,55,108"),
        ("celeba-private-224", "35,55,108"),
        ("celeba-public", "35,55,108"),
        ("ffhq", "88/128"),
        ("facescrub-64", "54/64"),
        ("pubfig83", "67/100"),
    ],
)
def test_tl_dmi_s_sets_are_cut_as_in_its_code(staged: str, crop: str) -> None:
    text = (ROOT / "docs" / "studies.md").read_text(encoding="ascii")
    commands = re.findall(rf"^python -m jobs\.stage_data .* --name {staged} .*$", text, re.MULTILINE)
    assert commands
    assert [one for one in commands if f" --crop {crop} " not in f"{one} "] == []


@pytest.mark.parametrize("name", TL_DMI)
def test_networks_of_ppa_s_kind_get_signed_pixels_and_no_others(name: str) -> None:
    for scale in (None, "small", "smoke"):
        for spec in (point.spec for point in expand(study_at(name, scale))[0]):
            models = {"target": (spec.target.model, spec.data.image_size), "judge": (spec.judge.model, 299)}
            for role, (model, side) in models.items():
                is_ppa = model.name.startswith(("resn", "maxvit", "inception")) and side >= 224
                assert (model.scaling == "signed") == is_ppa, (scale, role, model)


def _shape(spec: TrialSpec) -> str:
    """Return what decides how large a victim is and what of it is frozen."""
    target, data = spec.target, spec.data
    pretrain = target.pretrain is None
    return f"{target.model} {target.budget} {target.classes} {data.channels} {data.image_size} {pretrain}"

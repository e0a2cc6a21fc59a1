"""Spans modules: the promised orders in the demo study's settings, three seeds (AMI, sections 5.2-5.4)."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.sweep import app
from orchestrator.config.load import read_study
from orchestrator.config.normalise import normalise
from orchestrator.datasets import Location
from orchestrator.stages.graph import plan
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.sweep.points import expand
from orchestrator.sweep.profiles import profile_of
from orchestrator.sweep.validation import Preflight

DEMO = Path(__file__).resolve().parents[1] / "jobs" / "studies" / "demo.yaml"
FEW_POINTS = [
    "sweep=["
    "{release.truncation: [1, 5], seed: [0, 1, 2]},"
    "{release.truncation: [1], attack.align: [false], seed: [0, 1, 2]},"
    "{release.truncation: [1], auxiliary.kind: [distinct], seed: [0, 1, 2]}]"
]


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[object, ...], list[float]]:
    """Run a few points of the demo; return (m, auxiliary, aligned) -> test error of each seed."""
    out = tmp_path_factory.mktemp("orderings")
    options = [word for override in FEW_POINTS for word in ("--set", override)]
    done = CliRunner().invoke(app, [str(DEMO), "--local", "--ship-later", "--out", str(out), *options])
    assert done.exit_code == 0, done.output
    study = read_study(DEMO, overrides=FEW_POINTS)
    preflight, store = Preflight(Location()), Artifacts(DirectoryBlobs(out / "store"))
    found: dict[tuple[object, ...], list[float]] = {}
    for point in preflight.resolve_all(expand(study)[0]):
        artifact = store.find(
            plan(normalise(point.spec), preflight.digests, profile_of(study.resources))["evaluation"].key
        )
        assert artifact is not None
        cell = (point.axes["m"], point.axes["auxiliary"], point.axes["align"])
        found.setdefault(cell, []).append(artifact.metrics["inversion/mse_test"])
    return found


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        pytest.param((5, "same-heldout", True), (1, "same-heldout", True), id="full-beats-one-score"),
        pytest.param((1, "same-heldout", True), (1, "same-heldout", False), id="aligned-beats-unaligned"),
        pytest.param((1, "same-heldout", True), (1, "distinct", True), id="same-beats-distinct"),
    ],
)
def test_the_promised_order_shows_in_every_seed(
    errors: dict[tuple[object, ...], list[float]], better: tuple[object, ...], worse: tuple[object, ...]
) -> None:
    assert len(errors[better]) == len(errors[worse]) == 3
    assert all(low < high for low, high in zip(errors[better], errors[worse], strict=True))

"""Benchmark: forecasts of four studies beside what they took: `python -m benchmarks.forecast`.

The demo, a study of MNIST, one of faces and one of attacks with a prior are run, each into a store of its
own, in one process and at one precision. Each is then planned in a store that holds only the others'
manifests, and has a row for every kind of stage: forecast with its interval of 90 %, what it took, and the
factor between both. Stages that nothing in that store is like are unknown, in a column of their own. What is
stored is not run again.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orchestrator
from orchestrator.api.calibration import calibrate
from orchestrator.api.options import Options
from orchestrator.api.sweep import Sweep
from orchestrator.report.against_forecast import Compared, compared, total
from orchestrator.store.artifacts import Artifacts, manifest_name
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.listing import published

COMMON = ("resources.precision=float32", "report.orderings=[]")
"""Of every study: rates of one precision say nothing of another's; orders name values that may be gone."""


@dataclass(frozen=True)
class Case:
    """A study of the benchmark."""

    study: str
    scale: str | None = None
    overrides: Sequence[str] = ()


FACES = "{dataset: lfw-private-32, image_size: 32, channels: 1, split: eighty}"
NETWORK = "{name: ami-digit, width: 0.25}"
STUDENT = "{model: {name: vgg16, width: 0.125}, recipe: {epochs: 1, batch_size: 64, optimizer: adam}}"
IDENTITY = f"{{students: {{vgg16: {STUDENT}}}}}"


def prior(label: str, loss: str, name: str = "gmi") -> str:
    """Return a prior of the faces' public images, as a value of an axis."""
    network = f"{{name: {name}, width: 0.125}}"
    return f"[{{label: {label}, dataset: lfw-public-32, loss: {loss}, model: {network}, epochs: 1}}]"


SEARCHES = f"""[
{{prior: {prior("general", "hinge")}, attack: [
  {{label: MIA, name: mia, steps: 30, noise: 0.1}},
  {{label: GMI, name: gmi, steps: 20, identities: 1}},
  {{label: PPA, name: ppa, steps: 10, pool: 500, views: 10}},
  {{label: LOMMA-G, name: lomma-g, steps: 20, identities: 1, identity: {IDENTITY}}}]}},
{{prior: {prior("of F", "kedmi")}, attack: [{{label: KEDMI, name: kedmi, steps: 20}}]}},
{{prior: {prior("conditional", "plg", "plg")}, attack: [{{label: PLG-MI, name: plg-mi, steps: 10}}]}}]"""
CASES: Mapping[str, Case] = {
    "demo": Case("demo"),
    "mnist": Case(
        "ami-truncation",
        "small",
        (
            "sweep={release.truncation: [1, 3, null], attack.align: [true, false]}",
            "base.attack.recipe.epochs=6",
            "base.target.recipe.epochs=4",
            "base.judge.recipe.epochs=4",
            "base.evaluation.images=300",
        ),
    ),
    "faces": Case(
        "ami-truncation-faces",
        "small",
        (
            f"base.data={FACES}",
            *(f"base.{one}.model={NETWORK}" for one in ("target", "attack", "judge")),
            "base.auxiliary={kind: generic, dataset: lfw-public-32, size: 1500}",
            "sweep={seed: [0], release.truncation: [1, null], attack.align: [true, false]}",
            "base.attack.recipe.epochs=3",
            "base.target.recipe.epochs=4",
            "base.judge.recipe.epochs=4",
            "base.evaluation.images=300",
        ),
    ),
    "generative": Case(
        "tl-dmi-attacks",
        "small",
        (
            f"sweep={SEARCHES}",
            "base.target.model.width=0.125",
            "base.target.pretrain.recipe.epochs=1",
            "base.target.recipe.epochs=3",
            "base.judge.recipe.epochs=3",
            "base.evaluation.candidates=1",
            "base.judges={classifiers: {}, recogniser: null}",
            "report.metrics=[class/judge_top1]",
            "report.delta=null",
        ),
    ),
}
"""Name -> study; the sets are those that docs/studies.md stages for the small scales, in grey at 32x32."""


@dataclass(frozen=True)
class Ground:
    """Where the studies' stores and their data sets are."""

    folder: Path
    data: str | None

    def options(self, name: str, store: Path) -> Options:
        """Return how a case is opened over a store."""
        case, out = CASES[name], self.folder / "out"
        changes = [*case.overrides, *COMMON]
        return Options(case.study, changes, case.scale, out, str(store), self.data, None, ship_later=True)

    def store(self, name: str) -> Path:
        """Return the folder of a case's own store."""
        return self.folder / name

    def run(self, name: str) -> None:
        """Run what is missing of a case."""
        options = self.options(name, self.store(name))
        study = orchestrator.Study.load(options.study, scale=options.scale, overrides=options.overrides)
        study.run(local=True, data=self.data, store=options.store, out=options.out, ship_later=True)

    def rows(self, name: str, others: Sequence[str], *, calibrates: bool = False) -> list[Compared]:
        """Return the forecast of a case by what others took, beside what it took; `calibrates`: unknown kinds
        of stages are measured first."""
        with tempfile.TemporaryDirectory(prefix="forecast-") as scratch:
            copy_manifests([self.store(other) for other in others], Path(scratch))
            opened = Sweep(self.options(name, Path(scratch)), plans=True)
            tasks = opened.first_tasks()
            expected = opened.forecast(tasks)
            if calibrates and expected.unknown:
                sets = opened.preflight.descriptions
                done = calibrate(tasks, expected.unknown, opened.study.resources, sets)
                expected = opened.forecast(tasks, done.stages)
        took = published(Artifacts(DirectoryBlobs(self.store(name))), list(expected.missing))
        missing = {key: vars(one) if one else None for key, one in expected.missing.items()}
        return compared(missing, {key: artifact for key, artifact in took if artifact})


def copy_manifests(stores: Sequence[Path], to: Path) -> None:
    """Copy the manifests of stores, of which alone forecasts are made."""
    for store in stores:
        blobs = DirectoryBlobs(store)
        for key in Artifacts(blobs).keys():  # noqa: SIM118 - a store is no dict
            name = manifest_name(key)
            content = blobs.get(name)
            assert content is not None
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            (to / name).write_bytes(content)


def main() -> None:
    """Run, forecast and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="folder or bucket of the staged sets")
    parser.add_argument("--folder", type=Path, default=Path("runs/forecast"), help="stores of the studies")
    parser.add_argument("--calibrate", action="store_true", help="measure unknown kinds of stages first")
    arguments = parser.parse_args()
    ground = Ground(arguments.folder, arguments.data)
    for name in CASES:
        ground.run(name)
    heading = f"{'study':12}{'stage':16}{'stages':>7}{'forecast':>10}{'interval':>18}{'took':>9}{'factor':>8}"
    print(f"{heading} unknown")
    for name in CASES:
        others = [other for other in CASES if other != name]
        rows = ground.rows(name, others, calibrates=arguments.calibrate)
        for row in (*rows, total(rows)):
            interval = f"{row.low:.2f}..{row.high:.2f}"
            numbers = f"{row.num_forecast:7}{row.forecast:10.2f}{interval:>18}{row.actual:9.2f}"
            unknown = f"{row.num_unknown} of {row.actual_unknown:.2f}"
            print(f"{name:12}{row.stage:16}{numbers}{row.factor:8.2f} {unknown}")


if __name__ == "__main__":
    main()

"""Spans modules: bad input: one line for each fault, exit code 2, nothing started or written in MLflow."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from jobs import stage_data
from jobs.sweep import STUDIES, app
from orchestrator.config import ATTACK_SPECS
from orchestrator.models import CLASSIFIERS
from orchestrator.store.directory import DirectoryBlobs
from tests import s3, tiny
from tests.stages.test_pretrain import network, staged
from tests.sweep.test_validation import copy_of_digits, flip


def sweep(*arguments: object) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result: Result) -> list[str]:
    """Return the error lines of a command that must have refused."""
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines), lines
    return [line.removeprefix("error: ") for line in lines]


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no setting of this machine's user to the command."""
    for name in ("INVERSION_STORE", "INVERSION_DATA", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


pytestmark = pytest.mark.usefixtures("quiet")

SEED = {"seed": [0]}
UNKNOWN_ATTACK = f"attack.name=gan is unknown; choose one of {', '.join(ATTACK_SPECS)}."
Sections = dict[str, Any]


@pytest.mark.parametrize(
    ("sweep_axes", "changes", "flags", "lines"),
    [
        (
            SEED,
            {"attack.sise": 3},
            [],
            [
                "attack.sise is not a field of attack.name=inverter; known here: align, classes, encoding, "
                "losses, model, name, offset, offset_learnable, offset_learning_rate, recipe, seed, "
                "selection, zero_policy."
            ],
        ),
        (
            SEED,
            {"data.dataset": "imagenet"},
            [],
            [
                "data.dataset=imagenet is unknown; built in are digits, photo-patches; others need a data "
                "location with staged sets."
            ],
        ),
        (
            SEED,
            {"attack.name": "gan"},
            [],
            [UNKNOWN_ATTACK],
        ),
        (
            SEED,
            {"target.model": {"name": "vgg"}},
            [],
            [f"target.model.name=vgg is unknown; choose one of {', '.join(CLASSIFIERS)}."],
        ),
        (
            {"target.classes": [2, 11]},
            {"data.class_pool": None, "target.pretrain": None, "target.budget": "full"},
            [],
            ["target.classes=11 must lie in 1..10, the classes of digits; lower target.classes."],
        ),
        (
            {"release.truncation": [0, 1]},
            {},
            [],
            ["release.truncation=0 is refused: Input should be greater than 0."],
        ),
        (
            {"release.truncation": [4, 5]},
            {},
            [],
            [
                "sweep: none of its 2 points can exist; release.truncation=4 must lie in "
                "1..target.classes=3; use null to release every score."
            ],
        ),
        (
            {"auxiliary.size": [5, 500]},
            {},
            [],
            [
                "auxiliary.size=500 must lie in 1..134, the images of kind same-heldout at "
                "target.classes=3; lower auxiliary.size or use null for all."
            ],
        ),
        (
            {"target.budget": ["full", "block7"]},
            {},
            [],
            [
                "target.budget=block7 is no cut point of this classifier; choose full, block1, block2, "
                "block3, a layer set (first, middle, last), or |theta_C| in millions or as a percentage of "
                "|theta_T|."
            ],
        ),
        (
            SEED,
            {"target.pretrain": None},
            [],
            [
                "target.budget=block1 freezes layers at public weights, but target.pretrain is null; add "
                "target.pretrain, use the budget full, or set target.freezes_random=true to freeze random "
                "first weights."
            ],
        ),
        (
            {"attack.name": ["gan", "vae"]},
            {},
            [],
            [
                UNKNOWN_ATTACK,
            ],
        ),
        (
            {"target.classes": [1, 3]},
            {"release.truncation": None},
            [],
            ["target.classes=1 is refused: Input should be greater than or equal to 2."],
        ),
        (
            SEED,
            {"attack": {"name": "mia"}},
            [],
            [
                "sweep: none of its 1 points can exist; attack.name=mia makes one image for each class, not "
                "for each prediction; set evaluation.task=class-inference or use attack.name=optimization."
            ],
        ),
        (
            SEED,
            {"attack": {"name": "joint", "model": tiny.DIGIT, "recipe": {"epochs": 1}}},
            [],
            [
                "attack.recipe is not a field of attack.name=joint; known here: encoding, log_floor, model, "
                "name, offset, offset_learnable, offset_learning_rate, reduction, seed, weight, zero_policy."
            ],
        ),
        (
            SEED,
            {"attack.losses": {"features": 0.1}},
            [],
            [
                "attack.losses.features=0.1 needs a surrogate to compare with; set attack.losses.surrogate, "
                "for example to {model: {name: ami-digit}}."
            ],
        ),
        (
            SEED,
            {"data.image_size": 48},
            [],
            [
                "data.image_size=48 must be 32 for target.model.name=ami-digit; change the size or choose a "
                "network made for 48 (there is none)."
            ],
        ),
        (
            SEED,
            {"data.split": "half"},
            [],
            [
                "data.split=half of digits has no auxiliary images of the chosen classes; use another "
                "data.split."
            ],
        ),
        (SEED, {}, ["--scale", "huge"], ["--scale huge is not in tiny.yaml; it knows none."]),
        (
            SEED,
            {},
            ["--set", "target.seed"],
            ["--set target.seed must read path=value, for example target.recipe.epochs=3."],
        ),
        (
            SEED,
            {},
            ["--set", "target.seed=[1"],
            ["--set target.seed=[1 must give a YAML value, for example 3, [1, 2] or {low: 1, high: 9}."],
        ),
        (
            SEED,
            {},
            ["--set", "resources.workers=2", "--local"],
            ["resources.workers=2 needs Ray; drop --local or set resources.workers=1."],
        ),
        (
            SEED,
            {},
            ["--set", "search.scheduler={kind: median, reduction_factor: 2}"],
            ["search.scheduler.reduction_factor=2 changes nothing where kind=median; leave it out."],
        ),
        (
            {"target.defense": [{"label": "BiDO", "bido": {}}]},
            {},
            ["--set", "sweep.attack.offset={when: {target.defense: MID}, values: [1, 2]}"],
            ["sweep.attack.offset.when.target.defense=MID is no value of target.defense; it has BiDO."],
        ),
        (
            SEED,
            {},
            ["--set", "sweep.attack.offset={when: {defense: BiDO}, values: [1, 2]}"],
            [
                "sweep.attack.offset.when=defense is no axis above attack.offset; above are seed; put "
                "attack.offset below the axis it depends on."
            ],
        ),
        (
            SEED,
            {},
            ["--set", "search={algorithm: optuna, stop: {patience: 3}}"],
            [
                "search.stop.reference has no worst value of inversion/mse_test, which is no share of "
                "images; add {inversion/mse_test: VALUE}, the worst value that counts."
            ],
        ),
        (
            SEED,
            {},
            ["--store", "ftp://host/x"],
            ["store=ftp://host/x has the unknown scheme 'ftp'; use /dir, file:///dir or s3://bucket/prefix."],
        ),
        (
            SEED,
            {},
            ["--tracking-uri", "ftp://host/x"],
            [
                "tracking_uri=ftp://host/x must start with http://, https:// or sqlite:///; use "
                "sqlite:///runs/mlflow.db to track without a server."
            ],
        ),
        (
            {"target.budget": ["full", 0.2, "50%"]},
            {"target.model.width": 0.5},
            [],
            [
                "target.budget=0.2 means 200,000 trained parameters, but no cut point of ami-digit "
                "comes within 5%; the nearest are block3 with 61,503 and block2 with 357,183; name one of "
                "them.",
                "target.budget=50% means 216,032 trained parameters, but no cut point of ami-digit "
                "comes within 5%; the nearest are block2 with 357,183 and block3 with 61,503; name one of "
                "them.",
            ],
        ),
        (
            SEED,
            {"target.defense": {"bido": {"weight_x": -0.1}}},
            [],
            ["target.defense.bido.weight_x=-0.1 is refused: Input should be greater than or equal to 0."],
        ),
        (
            SEED,
            {},
            ["--set", "target.defense.mid.weight=-1"],
            ["target.defense.mid.weight=-1 is refused: Input should be greater than or equal to 0."],
        ),
        (
            {"target.defense.mid.weight": [0.01, -0.5]},
            {},
            [],
            ["target.defense.mid.weight=-0.5 is refused: Input should be greater than or equal to 0."],
        ),
        (
            SEED,
            {"target.defense": {"smoothing": {"alpha": -1}}},
            [],
            ["target.defense.smoothing.alpha=-1 is refused: Input should be greater than -1."],
        ),
        (
            SEED,
            {"target.defense": {"dp": {}, "bido": {}}},
            [],
            [
                "target.defense.bido.kind=hsic compares the images of a batch with each other: no image has "
                "a gradient of its own, for target.defense.dp to clip; set one of them to null."
            ],
        ),
        (
            SEED,
            {"target.defense": {"dp": {}}},
            [],
            [
                "target.freeze=weights lets frozen batch norms absorb private images, which "
                "target.defense.dp cannot protect; set target.freeze=weights+statistics."
            ],
        ),
        (
            SEED,
            {"target.recipe": {"epochs": 5}, "target.snapshots": [1, 5], "target.snapshot": 2},
            [],
            ["target.snapshot=2 must be one of target.snapshots=[1, 5]; add it there."],
        ),
        (
            SEED,
            {"target.snapshots": [1, 3]},
            [],
            ["target.snapshots=3 must lie in 1..target.recipe.epochs=1; leave it out or train longer."],
        ),
        (
            SEED,
            {"attack.recipe": {"augmentation": "flip"}},
            [],
            [
                "attack.recipe.augmentation=flip changes images, but an inverter learns from scores; set "
                "it to none."
            ],
        ),
        (
            SEED,
            {"target.pretrain": {"weights": "net"}},
            [],
            [
                "target.pretrain.weights=net is unknown: weights are staged at a data location; name it with "
                "--data."
            ],
        ),
        (
            SEED,
            {"target.pretrain": {"weights": "net", "minimum_accuracy": 0.5}},
            [],
            [
                "target.pretrain.minimum_accuracy=0.5 of weights=net needs a labelled set to check them on; "
                "name target.pretrain.dataset or use 0."
            ],
        ),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_wrong_study_or_flag(
    tmp_path: Path, sweep_axes: Sections, changes: Sections, flags: list[str], lines: list[str]
) -> None:
    study, out = tiny.write(tmp_path / "tiny.yaml", sweep_axes, changes), tmp_path / "runs"
    assert refused(sweep(study, "--local", "--out", out, *flags)) == lines
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]  # a refused command creates nothing


HEAD = yaml.safe_dump({"study": "tiny", "base": tiny.base(), "sweep": SEED})
LONG = "x" * 300
PATH = "is longer than a path can be (255 bytes in a name, 4095 in all); use a shorter one."


@pytest.mark.parametrize(
    ("files", "study", "start", "end"),
    [
        (
            {"a": "extends: b\n" + HEAD, "b": "extends: a\n"},
            "a.yaml",
            "extends=a in b.yaml extends a file that extends it; leave one of them out.",
            "",
        ),
        ({"a": "extends: a\n" + HEAD}, "a.yaml", "extends=a in a.yaml extends a file that extends it;", ""),
        (
            {"a": f"extends: {LONG}\n" + HEAD},
            "a.yaml",
            "extends=xxx",
            "must name a file beside it, without .yaml.",
        ),
        ({"a": "extends: [b]\n" + HEAD, "b": HEAD}, "a.yaml", "extends=['b'] in a.yaml must name a file", ""),
        (
            {"a": HEAD + "scales: {smoke: {1: 2}}"},
            "a.yaml",
            "a.yaml.scales.smoke.1 is a key that is no text,",
            "",
        ),
        (
            {"a": HEAD + "scales: 3"},
            "a.yaml",
            "scales in a.yaml must read scales: {smoke: {path: value}}.",
            "",
        ),
        ({"a": "[" * 2000 + "]" * 2000}, "a.yaml", "study=a.yaml is not a readable YAML study:", ""),
        ({"a": HEAD + "about: " + "[" * 90 + "]" * 90}, "a.yaml", "a.yaml.about.0.0", "that no field needs."),
        (
            {"a": "base: &a {b: *a}"},
            "a.yaml",
            "a.yaml.base.b.b.b",
            "is nested deeper than 24 levels; take out the ",
        ),
        ({"a": HEAD + 'about: "a\\nb\\e[31m"'}, "a.yaml", r"a.yaml.about=a\nb\x1b[31m has the character", ""),
        (
            {"a": HEAD.replace("study: tiny", r'study: "a\n"')},
            "a.yaml",
            r"study=a\n is refused: String should",
            "",
        ),
        ({}, LONG, "study=xxx", PATH),
        ({}, "x/" * 3000, "study=x/x/", PATH),
        ({}, "a\0b", r"study=a\x00b has a null byte, which no path may have; leave it out.", ""),
        ({}, "demos", "study=demos does not exist; did you mean demo.", ""),
        ({}, "Demo.yaml", "study=Demo.yaml does not exist; did you mean demo.", ""),
        (
            {},
            "ami-truncaton",
            "study=ami-truncaton does not exist; did you mean ami-truncation or ami-truncation-size or "
            "ami-truncation-faces.",
            "",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_file_that_is_no_study(
    files: dict[str, str],
    study: str,
    start: str,
    end: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in files.items():
        Path(f"{name}.yaml").write_text(content, encoding="utf-8")
    (line,) = refused(sweep(study, "--plan"))
    assert line.startswith(start), line
    assert end in line
    assert line.isprintable()
    assert {path.stem for path in tmp_path.iterdir()} == set(files)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        *(
            (
                ["--store", uri],
                f"store={uri} is neither a folder nor a URI with two slashes; use /dir, file:///dir or "
                "s3://bucket/prefix, or ./NAME for a folder of such a name.",
            )
            for uri in ("s3:/bucket", "s3:bucket", "file:/x", "s3//bucket")
        ),
        (
            ["--data", "s3:/b"],
            "data=s3:/b is neither a folder nor a URI with two slashes; use /dir, file:///dir",
        ),
        (["--data", LONG], "data=xxx"),
        (["--out", LONG], "out=xxx"),
        (
            ["--store", "/dev/null/x"],
            "store=/dev/null/x cannot be written, /dev/null is no directory; name a",
        ),
        (
            ["--wait-for-nodes", "nan"],
            "--wait-for-nodes=nan must lie in 0..100000, in minutes; use 0 to wait for",
        ),
        (["--wait-for-nodes", "-1"], "--wait-for-nodes=-1.0 must lie in 0..100000, in minutes;"),
        (
            ["--tracking-uri", "http://[::1"],
            "tracking_uri=http://[::1 is no address (Invalid IPv6 URL); write it",
        ),
        (
            ["--tracking-uri", "http://127.0.0.1:abc"],
            "tracking_uri=http://127.0.0.1:abc is no address (Port could",
        ),
        (
            ["--tracking-uri", "http://127.0.0.1:99999"],
            "tracking_uri=http://127.0.0.1:99999 is no address (Port",
        ),
        (
            ["--tracking-uri", "http://a b"],
            "tracking_uri=http://a b has a space or a character that cannot be",
        ),
        (
            ["--tracking-uri", "http://"],
            "tracking_uri=http:// names no host; write it like http://HOST:5000 or",
        ),
        (["--tracking-uri", f"sqlite:///{LONG}"], "tracking_uri=sqlite:///xxx"),
        (
            ["--tracking-uri", "sqlite:///:memory:"],
            "tracking_uri=sqlite:///:memory: would be lost with this process;",
        ),
        (
            ["--set", "resources.gpus_per_worker=1"],
            "resources.gpus_per_worker=1.0 needs an accelerator, and this process sees none; set it to 0 or "
            "drop --local for a cluster.",
        ),
        (
            ["--set", "resources.stages.evaluation.gpus_per_worker=0.5"],
            "resources.stages.evaluation.gpus_per_worker=0.5 needs an accelerator, and this process sees no",
        ),
        (
            ["--set", "target.recipe=3", "--set", "target.recipe.epochs=2"],
            "target.recipe=3 is no mapping, but the study sets epochs in it; write a mapping.",
        ),
        (
            ["--set", "attack.name=3"],
            "attack.name must be the name of an attack; choose one of inverter, joint,",
        ),
        (["--set", f"base.{'a.' * 3000}b=1"], "base.a.a.a"),
        (["--set", "base.attack=&a {b: *a}"], "--set base.attack.b.b.b"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_flag_that_cannot_be_is_refused_before_anything_is_made(
    flags: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # a machine that has one would run it
    monkeypatch.chdir(tmp_path)
    tiny.write(Path("tiny.yaml"), SEED)
    (told,) = refused(sweep("tiny.yaml", "--local", *flags))
    assert told.startswith(line), told
    assert len(told) < 700
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


@pytest.mark.parametrize("name", ["tiny", "unshipped"])
def test_a_file_where_the_report_goes_is_found_before_the_first_trial(name: str, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    out.mkdir()
    (out / name).write_text("mine", encoding="ascii")
    (line,) = refused(
        sweep(tiny.write(tmp_path / "tiny.yaml", SEED), "--local", "--ship-later", "--out", out)
    )
    assert line == (
        f"out={out / name} is no folder, and this command writes to one of that name; name another folder "
        "with --out or move it away."
    )
    assert [path.name for path in out.iterdir()] == [name]


def test_a_plan_creates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.write(Path("tiny.yaml"), SEED)
    for flags in ([], ["--store", "there/store"], ["--out", "there/runs"]):
        done = sweep("tiny.yaml", "--plan", *flags)
        assert done.exit_code == 0, done.output
        assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_the_shipped_studies_are_listed_with_their_scales() -> None:
    done = sweep("--list")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert "demo: scales smoke; " in done.stdout
    assert "ami-auxiliary: scales small, smoke; AMI, Figure 5: what the adversary's images are worth" in lines
    assert all(line.partition("; ")[2] for line in lines)
    assert len(lines) == len(list(STUDIES.glob("*.yaml")))


def test_a_study_that_is_not_there(tmp_path: Path) -> None:
    (line,) = refused(sweep(tmp_path / "absent.yaml", "--out", tmp_path / "runs"))
    way_out = "python -m jobs.sweep --list prints the shipped ones"
    assert line == f"study={tmp_path / 'absent.yaml'} does not exist; {way_out}."


def test_mlflow_that_does_not_answer_names_the_flag_that_goes_on(tmp_path: Path) -> None:
    uri = f"http://user:secret@127.0.0.1:{free_port()}"
    study, out = tiny.write(tmp_path / "tiny.yaml", SEED), tmp_path / "runs"
    (line,) = refused(sweep(study, "--local", "--out", out, "--tracking-uri", uri))
    assert line == (
        f"tracking_uri={uri.replace('user:secret', '***')} gets no answer from MLflow ([Errno 111] "
        "Connection refused); start it, or pass --ship-later to go on and send the results by running the "
        "same command again."
    )
    assert tracked(out) == []


def test_a_staged_shard_with_a_flipped_byte(tmp_path: Path) -> None:
    copy_of_digits(tmp_path / "data", "mine")
    (shard,) = (tmp_path / "data" / "mine").rglob("images-*.npy")
    flip(shard)
    study = tiny.write(tmp_path / "tiny.yaml", SEED, {"data.dataset": "mine"})
    (line,) = refused(sweep(study, "--local", "--out", tmp_path / "runs", "--data", tmp_path / "data"))
    assert f"/{shard.relative_to(tmp_path / 'data')} does not match its manifest: want SHA-256 " in line
    assert line.endswith("; remove the set's folder and stage it again with python -m jobs.stage_data.")
    assert tracked(tmp_path / "runs") == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "vgg",
            "target.pretrain.weights=vgg do not fit AmiClassifier: 18 tensors are missing (first: "
            "blocks.0.0.weight), 96 unknown (first: blocks.0.bias); choose weights of the same architecture.",
        ),
        (
            "five",
            "target.pretrain.weights=five tell 5 classes, but target.pretrain.dataset=digits, which is to "
            "check them, has 10; name a set with as many, or null to check nothing.",
        ),
        (
            "none",
            "target.pretrain.weights=none is unknown; staged at {data} are five, vgg; correct the name or "
            "stage the weights with python -m jobs.stage_weights.",
        ),
    ],
)
def test_public_weights_that_cannot_serve(name: str, line: str, tmp_path: Path) -> None:
    vgg = network(5, {"name": "vgg16", "width": 0.02}, 64)
    staged(tmp_path / "data", five=network(5).state_dict(), vgg=vgg.state_dict())
    changes = {"target.pretrain": {"weights": name, "dataset": "digits"}}
    study, out = tiny.write(tmp_path / "tiny.yaml", SEED, changes), tmp_path / "runs"
    told = refused(sweep(study, "--local", "--out", out, "--data", tmp_path / "data"))
    assert told == [line.format(data=DirectoryBlobs(tmp_path / "data").uri)]
    assert tracked(out) == []
    assert not list(out.rglob("manifest.json"))


def test_an_auxiliary_set_of_the_private_people(tmp_path: Path) -> None:
    copy_of_digits(tmp_path / "data", "mine")
    changes = {"auxiliary": {"kind": "generic", "dataset": "mine"}, "auxiliary.size": None}
    study = tiny.write(tmp_path / "tiny.yaml", SEED, changes)
    (line,) = refused(sweep(study, "--local", "--out", tmp_path / "runs", "--data", tmp_path / "data"))
    assert line.startswith("auxiliary.dataset=mine holds 5 of the private classes by name (")
    assert line.endswith(
        "but auxiliary.kind=generic promises others; set auxiliary.overlap to remove or allow, or stage it "
        "again with --exclude."
    )


def test_a_file_that_is_no_image_in_an_image_folder(tmp_path: Path) -> None:
    for person in ("ann", "bob"):
        (tmp_path / "people" / person).mkdir(parents=True)
        for number in range(4):
            pixels = np.full((8, 8), 10 * number + ord(person[0]), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "people" / person / f"{number}.png")
    (tmp_path / "people" / "ann" / "list.txt").write_text("not an image", encoding="utf-8")
    arguments = [str(tmp_path / "people"), str(tmp_path / "data")]
    (line,) = refused(CliRunner().invoke(stage_data.app, arguments))
    assert "ann/list.txt is no PNG, JPEG, WEBP or PGM image; remove it" in line
    assert list((tmp_path / "data").rglob("manifest.json")) == []


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """Run an S3 server that checks who asks (after the bucket is there)."""
    with s3.server(INITIAL_NO_AUTH_ACTION_COUNT="1", **s3.CREDENTIALS) as endpoint:
        yield endpoint


Ask = Callable[[str], list[str]]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Return a function that tries a store or data location on S3 and returns what it is told."""
    study = tiny.write(tmp_path / "tiny.yaml", SEED)
    for name, value in s3.CREDENTIALS.items():
        monkeypatch.setenv(name, value)

    def try_it(*flags: str) -> list[str]:
        lines = refused(sweep(study, "--local", "--out", tmp_path / "runs", *flags))
        assert tracked(tmp_path / "runs") == []
        return lines

    return try_it


def test_a_bucket_that_is_not_there(ask: Callable[..., list[str]], s3_endpoint: str) -> None:
    (line,) = ask("--store", "s3://no-such-bucket/x")
    assert line == (
        f"store=s3://no-such-bucket/x cannot be used: bucket no-such-bucket does not exist at "
        f"{s3_endpoint}; create it or name another with --store."
    )
    (line,) = ask("--data", "s3://no-such-bucket/x")
    assert "bucket no-such-bucket does not exist" in line


def test_wrong_credentials_are_said_and_never_printed(
    ask: Callable[..., list[str]], guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.new_bucket(guarded)
    monkeypatch.setenv("AWS_ENDPOINT_URL", guarded)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    (line,) = ask("--store", f"s3://{bucket}/x")
    assert line == (
        f"store=s3://{bucket}/x cannot be used: {guarded} refuses the credentials (InvalidAccessKeyId); "
        "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
    )
    assert "wrong-secret" not in line


def test_an_s3_endpoint_that_does_not_answer(
    ask: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    (line,) = ask("--store", "s3://bucket/x")
    assert line == (
        f"store=s3://bucket/x cannot be used: no answer from {os.environ['AWS_ENDPOINT_URL']} "
        "(EndpointConnectionError); start the server or correct AWS_ENDPOINT_URL."
    )


def tracked(out: Path) -> list[str]:
    """Return what MLflow or a tracker of lines has written."""
    return [path.name for path in out.rglob("*") if path.name in ("mlflow.db", "mlartifacts", "unshipped")]


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_every_line_of_several_faults_is_an_error_line(tmp_path: Path) -> None:
    study = tmp_path / "tiny.yaml"
    study.write_text(yaml.safe_dump({"study": "tiny", "sweeep": 1}), encoding="utf-8")
    assert refused(sweep(study, "--out", tmp_path / "runs")) == [
        "base is missing; add it to tiny.yaml.",
        "sweep is missing; add it to tiny.yaml.",
        "sweeep is not a field; known here: about, base, report, resources, search, study, sweep.",
    ]

"""What is refused before anything starts, and how a budget becomes a cut point."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.config.study import StudyError
from orchestrator.datasets import Location, catalog, describe, load
from orchestrator.datasets.builtin import staged
from orchestrator.datasets.manifest import Options
from orchestrator.datasets.selection import auxiliary_images, private_classes, public_classes, target_images
from orchestrator.datasets.sources.base import array_source
from orchestrator.datasets.staging import publish
from orchestrator.models import CLASSIFIERS
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.sweep.points import Point, expand
from orchestrator.sweep.validation import Preflight
from tests import tiny

DIGITS = {"dataset": "digits"}  # every class may be private
UNFROZEN = {"target.pretrain": None, "target.budget": "full"}

INFERENCE = {"evaluation.task": "class-inference"}


def point(changes: dict[str, Any] | None = None) -> Point:
    """Return the only point of the tiny study with dotted paths changed."""
    return expand(tiny.study({"seed": [0]}, changes))[0][0]


def refusal(changes: dict[str, Any]) -> str:
    """Return why the tiny trial with dotted paths changed cannot run."""
    with pytest.raises(StudyError) as caught:
        Preflight(Location()).resolve(point(changes))
    return str(caught.value)


UNKNOWN = "built in are digits, photo-patches; others need a data location with staged sets."


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"data.dataset": "imagenet"}, f"data.dataset=imagenet is unknown; {UNKNOWN}"),
        (
            {"auxiliary": {"kind": "distinct", "dataset": "cats"}},
            f"auxiliary.dataset=cats is unknown; {UNKNOWN}",
        ),
        ({"target.pretrain": {"dataset": "cats"}}, f"target.pretrain.dataset=cats is unknown; {UNKNOWN}"),
        (
            {"attack.name": "gan"},
            "attack.name=gan is unknown; choose one of inverter, joint, mia, optimization, gmi, "
            "kedmi, ppa, brepmi, mirror, plg-mi, vmi, mirror-black-box, "
            "lomma-g, lomma-k.",
        ),
        (
            {"target.model": {"name": "vgg"}},
            f"target.model.name=vgg is unknown; choose one of {', '.join(CLASSIFIERS)}.",
        ),
        (
            {"judge.model": {"name": "vgg"}},
            f"judge.model.name=vgg is unknown; choose one of {', '.join(CLASSIFIERS)}.",
        ),
        (
            {**INFERENCE, "attack": {"name": "plg-mi"}, "prior": {"loss": "plg", "model": {"name": "gmi"}}},
            "prior.model.name=gmi is no generator for prior.loss=plg; use plg.",
        ),
        (
            {**INFERENCE, "attack": {"name": "gmi"}, "prior": {"model": {"name": "plg"}}},
            "prior.model.name=plg is no generator for prior.loss=hinge; use gmi.",
        ),
        (
            {"attack.model": {"name": "vgg"}},
            "attack.model.name=vgg is unknown; choose one of ami-digit, ami-face.",
        ),
        (
            {"data": DIGITS, "target.classes": 11},
            "target.classes=11 must lie in 1..10, the classes of digits; lower target.classes.",
        ),
        (
            {"data.class_pool": 11, **UNFROZEN},
            "data.class_pool=11 must lie in 1..10, the classes of digits; lower data.class_pool.",
        ),
        (
            {"data": DIGITS},
            "data.class_pool=null leaves no public class of the 10 of digits, but target.pretrain.dataset "
            "needs some; lower data.class_pool or name another dataset there.",
        ),
        (
            {"data": DIGITS, **UNFROZEN, "auxiliary.kind": "generic"},
            "data.class_pool=null leaves no public class of the 10 of digits, but auxiliary.kind=generic "
            "needs some; lower data.class_pool or name another dataset there.",
        ),
        (
            {"data.split": "odd"},
            "data.split=odd is not a split of digits; it has default, eighty, even, half.",
        ),
        (
            {"data.image_size": 64},
            "data.image_size=64 must be 32 for target.model.name=ami-digit; change the size or choose a "
            "network made for 64 (ami-face, vgg16, ir152, facenet64).",
        ),
        (
            {"prior": {"dataset": "cats"}},
            f"prior.dataset=cats is unknown; {UNKNOWN}",
        ),
        (
            {"prior": {"dataset": "digits"}},
            "prior.dataset=digits holds 5 of the private classes by name (0, 1, 4, ...), but a prior is "
            "trained on public images; stage it again with --exclude, or use null for the public classes of "
            "the private set.",
        ),
        (
            {"data": DIGITS, **UNFROZEN, "prior": {}},
            "data.class_pool=null leaves no public class of the 10 of digits, but prior.dataset needs some; "
            "lower data.class_pool or name another dataset there.",
        ),
        (
            {"prior": {"model": {"name": "dcgan"}}},
            "prior.model.name=dcgan is unknown; choose one of gmi, plg.",
        ),
        (
            {"prior": {"batch_size": 1}},
            "prior.batch_size=1 must be at least 2, a batch of two; set it to 2 or more.",
        ),
        (
            {"target.budget": "block9"},
            "target.budget=block9 is no cut point of this classifier; choose full, block1, block2, block3, "
            "a layer set (first, middle, last), or |theta_C| in millions or as a percentage of |theta_T|.",
        ),
        (
            {"target.pretrain": None},
            "target.budget=block1 freezes layers at public weights, but target.pretrain is null; add "
            "target.pretrain, use the budget full, or set target.freezes_random=true to freeze random first "
            "weights.",
        ),
        (
            {"auxiliary": {"kind": "distinct", "dataset": "digits"}},
            "auxiliary.dataset=digits is the private data set, but auxiliary.kind=distinct needs unrelated "
            "images; name another data set or use null for the photograph patches.",
        ),
        (
            {"data.split": "half"},
            "data.split=half of digits has no auxiliary images of the chosen classes; use another "
            "data.split.",
        ),
        (
            {"auxiliary.size": 135},
            "auxiliary.size=135 must lie in 1..134, the images of kind same-heldout at target.classes=3; "
            "lower auxiliary.size or use null for all.",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_cannot_run_is_told_in_one_line(changes: dict[str, Any], text: str) -> None:
    assert refusal(changes) == text


KINDS = ["same-train", "same-heldout", "same-test", "generic", "distinct", "augmented"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_that_is_allowed_is_the_size_that_there_is(kind: str) -> None:
    trial = tiny.spec({"auxiliary": {"kind": kind}})
    other = load("photo-patches", Location()) if kind == "distinct" else None
    there = len(auxiliary_images(load("digits", Location()), other, trial.data, 3, trial.auxiliary))
    Preflight(Location()).resolve(point({"auxiliary": {"kind": kind, "size": there}}))
    assert f"must lie in 1..{there}, the images" in refusal({"auxiliary": {"kind": kind, "size": there + 1}})


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "same-heldout"])
def test_a_split_without_held_out_images_serves_every_other_kind(kind: str) -> None:
    Preflight(Location()).resolve(point({"data.split": "half", "auxiliary": {"kind": kind}}))


@pytest.mark.parametrize("attack", [{"name": "optimization"}, {"name": "joint", "model": tiny.DIGIT}])
@pytest.mark.parametrize("auxiliary", [{}, {"kind": "generic", "dataset": "absent"}, {"size": 10_000}])
def test_an_attack_without_images_of_its_own_needs_no_auxiliary_set(
    attack: dict[str, Any], auxiliary: dict[str, Any]
) -> None:
    changes = {"data.split": "half", "attack": attack, "auxiliary": auxiliary}
    Preflight(Location()).resolve(point(changes))


@pytest.mark.parametrize("kind", ["generic", "augmented"])
def test_private_classes_in_another_set_are_refused_removed_or_allowed(tmp_path: Path, kind: str) -> None:
    copy_of_digits(tmp_path, "mine")
    preflight = Preflight(Location(DirectoryBlobs(tmp_path)))

    def other(overlap: str, size: int | None = None) -> Point:
        chosen = {"kind": kind, "dataset": "mine", "overlap": overlap, "size": size}
        return point({"auxiliary": chosen})

    with pytest.raises(StudyError) as refusal:
        preflight.resolve(other("refuse"))
    assert str(refusal.value) == (
        "auxiliary.dataset=mine holds 5 of the private classes by name (0, 1, 4, ...), but "
        f"auxiliary.kind={kind} promises others; set auxiliary.overlap to remove or allow, or stage it again "
        "with --exclude."
    )
    digits, trial = load("digits", Location()), point().spec
    train = len(target_images(digits, trial.data, 3, "train")) if kind == "augmented" else 0
    public = int(np.isin(digits.labels, public_classes(digits, trial.data)).sum())
    for overlap, there in (("remove", public + train), ("allow", 1797 + train)):
        preflight.resolve(other(overlap, there))
        with pytest.raises(StudyError, match=rf"must lie in 1\.\.{there}, the images of kind {kind}"):
            preflight.resolve(other(overlap, there + 1))


def test_a_set_without_classes_serves_the_adversary_alone(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 1), dtype=np.uint8)
    source = array_source("npz", images, np.zeros(40, dtype=np.int64), "a", "0" * 64).unlabelled()
    publish(source, Options(unlabelled=True), DirectoryBlobs(tmp_path), "faces")
    preflight = Preflight(Location(DirectoryBlobs(tmp_path)))
    preflight.resolve(point({"auxiliary": {"kind": "generic", "dataset": "faces"}}))
    for field, changes in (
        ("data.dataset", {"data.dataset": "faces", **UNFROZEN}),
        ("target.pretrain.dataset", {"target.pretrain": {"dataset": "faces"}}),
    ):
        with pytest.raises(StudyError) as refusal:
            preflight.resolve(point(changes))
        assert str(refusal.value) == (
            f"{field}=faces was staged with --unlabelled, but classifiers are trained and tested on classes; "
            "name a set with classes, or use this one as auxiliary.dataset."
        )


def test_a_private_class_without_a_test_image_is_named(tmp_path: Path) -> None:
    digits = load("digits", Location())
    first = int(private_classes(digits, point().spec.data, 3)[0])
    codes = np.where(digits.labels == first, 0, digits.splits["even"])
    source = array_source(
        "npz", digits.images[:], digits.labels, digits.class_names, "0" * 64, {"mine": codes}
    )
    blobs = DirectoryBlobs(tmp_path)
    publish(source, Options(), blobs, "mine")
    preflight = Preflight(Location(blobs))
    with pytest.raises(StudyError) as refusal:
        preflight.resolve(point({"data.dataset": "mine", "data.split": "mine"}))
    assert str(refusal.value) == (
        f"data.split=mine of mine has no evaluation image of class {first} ({first}), and 1 of 3 private "
        "classes have none; use another data.split or stage the set again with --split or --exclude."
    )


def test_images_are_counted_without_holding_their_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("pixels were loaded")

    monkeypatch.setattr(catalog, "_load", never)
    for kind in KINDS:
        Preflight(Location()).resolve(point({"auxiliary": {"kind": kind, "size": 3}}))


def test_a_number_picks_the_nearest_cut_point() -> None:
    wanted: dict[float | str, str] = {0.00166: "full", 0.0013: "block3", "97%": "block1"}
    for number, cut in wanted.items():
        resolved = Preflight(Location()).resolve(point({"target.budget": number}))
        assert resolved.spec.target.budget == cut
        assert resolved.spec == point({"target.budget": cut}).spec


def test_every_distinct_fault_is_reported_once() -> None:
    points = [point({"data.dataset": name}) for name in ("a", "b", "a")] + [point()]
    with pytest.raises(StudyError) as caught:
        Preflight(Location()).resolve_all(points)
    assert [line.split(" is ")[0] for line in str(caught.value).splitlines()] == [
        "data.dataset=a",
        "data.dataset=b",
    ]


def test_digests_are_those_of_the_manifests() -> None:
    preflight = Preflight(Location())
    preflight.resolve(point({"auxiliary.kind": "distinct"}))
    manifests = {name: staged(name).get(f"{name}/manifest.json") for name in ("digits", "photo-patches")}
    assert preflight.digests == {
        name: hashlib.sha256(manifest or b"").hexdigest() for name, manifest in manifests.items()
    }


def test_a_staged_shard_with_a_flipped_byte_is_found(tmp_path: Path) -> None:
    copy_of_digits(tmp_path, "mine")
    here = Location(DirectoryBlobs(tmp_path))
    changes = {"data.dataset": "mine"}
    assert Preflight(here).resolve(point(changes)).spec.data.dataset == "mine"
    assert describe("mine", here).source.endswith("/mine")
    (shard,) = (tmp_path / "mine").rglob("images-*.npy")
    flip(shard)
    with pytest.raises(StudyError) as caught:
        Preflight(here).resolve(point(changes))
    assert "does not match its manifest: want SHA-256" in str(caught.value)
    assert "remove the set's folder and stage it again with python -m jobs.stage_data." in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_sets_name_the_staged_ones(tmp_path: Path) -> None:
    copy_of_digits(tmp_path, "mine")
    with pytest.raises(StudyError, match=r"staged at .* are mine; correct the name or stage the set"):
        Preflight(Location(DirectoryBlobs(tmp_path))).resolve(point({"data.dataset": "yours"}))


def copy_of_digits(folder: Path, name: str) -> None:
    """Stage the bundled digits under another name."""
    blobs, source = DirectoryBlobs(folder), staged("digits")
    for path in source.names("digits/"):
        blobs.put(path.replace("digits", name, 1), source.get(path) or b"")


def flip(path: Path) -> None:
    """Turn one bit of a file."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)

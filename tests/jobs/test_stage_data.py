"""The command as people call it, on the real image sets where they are at hand."""

import gzip
import hashlib
import shutil
import signal
import struct
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from ray._private.runtime_env.packaging import create_package
from typer.testing import CliRunner, Result

from jobs.stage_data import app
from orchestrator.config import Auxiliary, Data
from orchestrator.datasets import Location, describe, load, verify
from orchestrator.datasets.selection import auxiliary_images, shared_identities
from orchestrator.datasets.weights import stage as stage_weights
from orchestrator.runtime.open_store import open_blobs
from orchestrator.store.directory import DirectoryBlobs
from tests import s3

ROOT = Path(__file__).resolve().parents[2]


def stage(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def staged(*arguments: object) -> str:
    result = stage(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def raw(path: Path, header: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress(path.read_bytes())[header:], dtype=np.uint8)


@pytest.mark.parametrize(("name", "layout"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_idx_sets(shared_data: Path, tmp_path: Path, name: str, layout: str) -> None:
    output = staged(f"{name}:{shared_data}", tmp_path)
    dataset = load(name, Location(DirectoryBlobs(tmp_path)))
    assert dataset.images.shape == (70000, 28, 28, 1)
    test_part = dataset.images[dataset.splits["original"] == 2]
    folder = shared_data / layout / "raw"
    assert np.array_equal(test_part.ravel(), raw(folder / "t10k-images-idx3-ubyte.gz", 16))
    assert np.array_equal(dataset.labels[60000:], raw(folder / "t10k-labels-idx1-ubyte.gz", 8))
    assert "images: 70000 seen, 70000 kept, 0 dropped; 10 classes, 28x28x1" in output
    assert f"digest: {dataset.description.digest}" in output


def test_npz_resized_in_grey_with_two_splits(shared_data: Path, tmp_path: Path) -> None:
    splits = ("--split", "half=0.5,0,0.5@3", "--split", "default=0.8,0.1,0.1@0")
    source = shared_data / "cifar10_test2k.npz"
    staged(source, tmp_path, "--name", "cifar", "--size", 16, "--channels", 1, *splits)
    about = verify("cifar", Location(DirectoryBlobs(tmp_path), tmp_path / "cache"))
    assert (about.image_shape, about.num_images, about.num_classes) == ((16, 16, 1), 2000, 10)
    assert about.splits == ("default", "half")


def test_pictures_that_are_not_square(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "orl_faces.npz"
    refused = stage(source, tmp_path)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr == (
        "error: image 0 is 112x92, networks take squares; pass --crop LEFT,TOP,SIDE, --crop centre or "
        "--stretch.\n"
    )
    assert "40 classes, 92x92x1" in staged(source, tmp_path, "--crop", "centre")
    assert "40 classes, 32x32x1" in staged(source, tmp_path, "--stretch", "--size", 32, "--name", "wide")
    assert "40 classes, 80x80x1" in staged(source, tmp_path, "--crop", "6,20,80", "--name", "cut")
    share = ("--crop", "54/64", "--stretch", "--size", "64")
    assert "40 classes, 64x64x1" in staged(source, tmp_path, *share, "--name", "share")
    with np.load(source) as arrays:
        assert np.array_equal(
            load("cut", Location(DirectoryBlobs(tmp_path))).images[:][7], arrays["images"][7][20:100, 6:86]
        )


def test_faces_in_a_zip_without_their_duplicates(shared_data: Path, tmp_path: Path) -> None:
    output = staged(shared_data / "cfp64.zip", tmp_path)
    assert "images: 5001 seen, 4972 kept, 29 dropped; 500 classes, 64x64x3" in output
    assert "dropped: 1 outside a class folder" in output
    assert "dropped: 28 duplicate" in output
    assert "split default: 2498 train, 1474 auxiliary, 1000 evaluation" in output


@pytest.fixture(scope="module")
def lfw(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Location:
    """Return LFW as the people with many pictures, those with few, and everybody."""
    source, out = shared_data / "lfw64.zip", tmp_path_factory.mktemp("lfw")
    one_part = ("--split", "default=1,0,0")
    assert "3023 kept" in staged(source, out, "--name", "many", "--min-images", 20)
    assert "class too large" in staged(source, out, "--name", "few", "--max-images", 19, *one_part)
    staged(source, out, "--name", "lfw", *one_part)
    return Location(DirectoryBlobs(out))


def test_people_with_many_and_with_few_pictures_are_others(lfw: Location) -> None:
    many, few = describe("many", lfw), describe("few", lfw)
    assert (many.num_classes, few.num_classes) == (62, 5749 - 62)
    assert many.num_images + few.num_images == describe("lfw", lfw).num_images
    assert not set(many.class_names) & set(few.class_names)
    assert shared_identities(many, few, Data(dataset="many")) == ()


def test_lfw_as_generic_set_of_its_own_people(lfw: Location) -> None:
    data = Data(dataset="many", image_size=64)
    many, everybody = load("many", lfw), load("lfw", lfw)
    names = shared_identities(many, everybody, data)
    assert (len(names), names[0]) == (62, "Alejandro_Toledo")
    generic = Auxiliary(kind="generic", dataset="lfw")
    with pytest.raises(ValueError, match=r"holds 62 of .* by name \(Alejandro_Toledo, .*, \.\.\.\), but"):
        auxiliary_images(many, everybody, data, 10, generic)
    removed = generic.model_copy(update={"overlap": "remove"})
    images = auxiliary_images(many, everybody, data, 10, removed)
    assert len(images) == describe("few", lfw).num_images
    allowed = generic.model_copy(update={"overlap": "allow"})
    with pytest.raises(ValueError, match=r"promises images unknown to the target, but \d+ of \d+ equal"):
        auxiliary_images(many, everybody, data, 10, allowed)


def test_the_list_of_people_shared_with_cfp(shared_data: Path, tmp_path: Path) -> None:
    source, listed = shared_data / "lfw64.zip", tmp_path / "overlap.csv"
    with zipfile.ZipFile(source) as archive:
        listed.write_bytes(archive.read("lfw64_overlap_cfp.csv"))
    output = staged(source, tmp_path / "out", "--exclude", listed, "--split", "default=1,0,0")
    digest = hashlib.sha256(listed.read_bytes()).hexdigest()
    assert f"excluded: 207 of 207 listed names, list sha256 {digest}" in output
    assert "dropped: 2845 excluded class" in output
    assert "5542 classes, 64x64x3" in output


def test_a_second_call_does_nothing(tmp_path: Path) -> None:
    first = staged("digits", tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again = staged("digits", tmp_path)
    assert "already staged, nothing written" in again
    assert first.splitlines()[-1] == again.splitlines()[-1]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == times


def test_a_bucket_holds_the_same_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in s3.CREDENTIALS.items():
        monkeypatch.setenv(variable, value)
    with s3.server(**s3.CREDENTIALS) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        uri = f"s3://{s3.new_bucket(endpoint)}/data"
        staged("photo-patches", uri)
        there = Location(open_blobs(uri), tmp_path)
        assert describe("photo-patches", there).digest == describe("photo-patches", Location()).digest
        missing = stage("digits", "s3://no-such-bucket/data")
    assert missing.exit_code == 2
    assert "bucket no-such-bucket does not exist" in missing.output
    assert "name another with DEST" in missing.output


def test_nothing_but_text_without_a_terminal(tmp_path: Path) -> None:
    result = stage("digits", tmp_path)
    assert "\x1b" not in result.output
    assert "staging" not in result.output


INTERRUPTED = """
from orchestrator.datasets import staging
staging.SHARD_BYTES = 200_000
from jobs.stage_data import app
app()
"""


def test_a_killed_staging_that_is_started_again_sends_only_the_rest(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, bucket = tmp_path / "whole", s3.new_bucket(s3_endpoint)
    command = [sys.executable, "-c", INTERRUPTED, "photo-patches"]
    subprocess.run([*command, str(whole)], check=True, capture_output=True, cwd=ROOT, timeout=120)
    arrays = sorted(path.relative_to(whole).as_posix() for path in whole.rglob("*.npy"))
    assert len(arrays) > 30
    there = open_blobs(f"s3://{bucket}/data")
    with s3.Proxy(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        enough = threading.Event()
        proxy.on_request = lambda method, path: enough.set() if sent(proxy) > 12 else None
        first = subprocess.Popen([*command, f"s3://{bucket}/data"], cwd=ROOT, stdout=subprocess.DEVNULL)
        assert enough.wait(120)
        first.kill()
        assert first.wait(30) == -signal.SIGKILL
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
        before = [name for name in there.names("") if name.endswith(".npy")]
        assert 0 < len(before) < len(arrays)
        assert "photo-patches/manifest.json" not in there.names("")
        proxy.asked.clear()
        proxy.on_request = lambda method, path: None
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        again = [*command, f"s3://{bucket}/data"]
        done = subprocess.run(again, check=True, capture_output=True, text=True, cwd=ROOT, timeout=120)
        assert sent(proxy) == len(arrays) - len(before)
    said = (
        f"files: {len(arrays) - len(before)} sent, {len(before)} were there from a staging that ended early"
    )
    assert said in done.stdout
    for name in (*arrays, "photo-patches/manifest.json"):
        assert there.get(name) == (whole / name).read_bytes()


def sent(proxy: s3.Proxy) -> int:
    """Return how many arrays were put."""
    return sum(method == "PUT" and path.endswith(".npy") for method, path, _ in proxy.asked)


def idx(data: np.ndarray) -> bytes:
    """Return an array as torchvision's archives hold it."""
    return struct.pack(f">HBB{data.ndim}I", 0, 8, data.ndim, *data.shape) + data.astype(np.uint8).tobytes()


@pytest.mark.parametrize(
    ("source", "called", "more"),
    [
        ("mnist", "MNIST", {}),
        ("fashion-mnist", "FashionMNIST", {}),
        ("emnist", "EMNIST", {"split": "balanced"}),
        ("emnist-letters", "EMNIST", {"split": "balanced"}),
        ("cifar10", "CIFAR10", {}),
    ],
)
def test_torchvision_fetches_only_when_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, called: str, more: dict[str, str]
) -> None:
    asked = []

    def fetch(root: str, **options: object) -> None:
        asked.append((root, options))
        raise URLError("no network\nhere")

    monkeypatch.setattr(torchvision.datasets, called, fetch)
    folder = tmp_path / "raw"
    assert "needs an existing folder" in stage(f"{source}:{folder}", tmp_path / "out").stderr
    assert asked == []
    result = stage(f"{source}:{folder}", tmp_path / "out", "--download")
    assert asked == [(str(folder), {"download": True, **more})]
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: SOURCE={source}:{folder} could not be downloaded (URLError: <urlopen error no network "
        "here>); try again, or put the files into that folder as torchvision does.\n"
    )


def test_what_torchvision_fetched_is_staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(root: str, *, download: bool) -> None:
        raw_files = Path(root) / "MNIST" / "raw"
        raw_files.mkdir(parents=True)
        for part, size in (("train", 60), ("t10k", 20)):
            images = np.arange(size * 784, dtype=np.uint32).reshape(size, 28, 28) * 7 >> 3
            (raw_files / f"{part}-images-idx3-ubyte").write_bytes(idx(images % 251))
            (raw_files / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(size) % 10))

    monkeypatch.setattr(torchvision.datasets, "MNIST", fetch)
    output = staged(f"mnist:{tmp_path / 'raw'}", tmp_path / "out", "--download")
    assert "images: 80 seen" in output


def test_only_torchvisions_sets_can_be_fetched(tmp_path: Path) -> None:
    for source in ("digits", "celeba:/data", "mnist", str(tmp_path)):
        result = stage(source, tmp_path / "out", "--download")
        assert result.exit_code == 2
        assert result.stderr == (
            "error: --download fetches mnist:DIR, fashion-mnist:DIR, emnist:DIR, cifar10:DIR, but "
            f"SOURCE={source}; correct SOURCE or drop --download.\n"
        )


def people(folder: Path, shift: int = 0) -> Path:
    for person in ("ann", "bob"):
        (folder / person).mkdir(parents=True)
        for number in range(4):
            pixels = np.full((8, 8), 50 * number + shift + ord(person[0]) % 7, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / person / f"{number}.png")
    return folder


def test_excluded_classes_and_the_checksum_of_the_list(tmp_path: Path) -> None:
    folder, listed = people(tmp_path / "people"), tmp_path / "list.txt"
    (folder / "Carl_Orff").mkdir()
    for number in range(4):
        Image.fromarray(np.full((8, 8), 7 * number, dtype=np.uint8)).save(
            folder / "Carl_Orff" / f"{number}.png"
        )
    listed.write_text("# identities\nname\ncarl orff\nnobody\n", encoding="utf-8")
    arguments = (folder, tmp_path / "out", "--exclude", listed)
    output = staged(*arguments)
    digest = hashlib.sha256(listed.read_bytes()).hexdigest()
    assert "images: 12 seen, 8 kept, 4 dropped; 2 classes, 8x8x1" in output
    assert "dropped: 4 excluded class" in output
    assert f"excluded: 1 of 2 listed names, list sha256 {digest}" in output
    assert "already staged, nothing written" in staged(*arguments)
    assert "already holds another set" in stage(folder, tmp_path / "out").stderr


def test_celeba_without_the_people_of_a_list(tmp_path: Path) -> None:
    folder, rng = tmp_path / "celeba", np.random.default_rng(0)
    (folder / "img_align_celeba").mkdir(parents=True)
    people = [number % 3 for number in range(17)] + [7]  # who has one picture, too few for three parts
    names = [f"{number:06d}.jpg" for number in range(1, 19)]
    lines = [f"{name} {who}\n" for name, who in zip(names, people, strict=True)]
    (folder / "identity_CelebA.txt").write_text("".join(lines), encoding="ascii")
    for name in names[1:]:  # the first one is missing
        pixels = rng.integers(0, 256, (218, 178, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "img_align_celeba" / name)
    (tmp_path / "LIST.txt").write_text("1\n99\n", encoding="ascii")
    flags = (
        "--size",
        "64",
        "--channels",
        "1",
        "--exclude",
        tmp_path / "LIST.txt",
        "--split",
        "default=1,0,0",
    )
    output = staged(f"celeba:{folder}", tmp_path / "out", *flags)
    assert "images: 18 seen, 11 kept, 7 dropped; 3 classes, 64x64x1" in output
    assert "dropped: 6 excluded class" in output
    assert "dropped: 1 no such picture on disk" in output
    assert "excluded: 1 of 2 listed names" in output


def owners_celeba(folder: Path, suffix: str) -> list[str]:
    """Write nine pictures of the people 7, 8 and 2880; return the lines of the owners' list."""
    (folder / "img_align_celeba").mkdir(parents=True)
    rng, lines = np.random.default_rng(0), []
    for number in range(1, 10):
        pixels = rng.integers(0, 256, (218, 178, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "img_align_celeba" / f"{number:06d}{suffix}")
        lines.append(f"{number:06d}.jpg {(7, 8, 2880)[number % 3]}")
    (folder / "identity_CelebA.txt").write_text("\n".join(lines), encoding="ascii")
    return lines


def test_the_lists_of_gmi_for_celeba(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Person 2880 is GMI's label 0, person 7 its label 1; person 8 is in the list for the GAN."""
    monkeypatch.chdir(tmp_path)
    owners_celeba(tmp_path / "celeba", ".jpg")
    Path("trainset.txt").write_text("000002.png 0\n000005.png 0\n000003.png 1\n", encoding="ascii")
    Path("testset.txt").write_text("000006.png 1\n000008.png 0\n", encoding="ascii")
    Path("ganset.txt").write_text("000001.png\n000004.png\n", encoding="ascii")
    cut = ("celeba:celeba", "out", "--size", 16, "--crop", "35,55,108")
    output = staged(*cut, "--name", "private", "--split-list", "default=trainset.txt,,testset.txt")
    assert "images: 9 seen, 5 kept, 4 dropped; 2 classes, 16x16x3" in output
    assert "dropped: 4 not on a split list" in output
    assert "classes: in the order of the 2 labels of split default, which are the class ids" in output
    assert "split default: 3 train, 0 auxiliary, 2 evaluation" in output
    assert [line.split(":")[0] for line in output.splitlines() if line.startswith("split ")] == [
        "split default"
    ]
    public = ("--name", "public", "--split-list", "default=ganset.txt,,", "--unlabelled")
    assert "1 class without labels" in staged(*cut, *public)
    there = Location(DirectoryBlobs(tmp_path / "out"))
    private = load("private", there)
    assert private.class_names == ("2880", "7")
    assert private.labels.tolist() == [0, 1, 0, 1, 0]
    assert private.splits["default"].tolist() == [0, 0, 0, 2, 2]
    assert (describe("public", there).num_images, describe("public", there).is_labelled) == (2, False)
    again = staged(*cut, "--name", "private", "--split-list", "default=trainset.txt,,testset.txt")
    assert "already staged, nothing written" in again


def test_lists_of_a_zip_beside_a_split_that_is_drawn(tmp_path: Path) -> None:
    folder = people(tmp_path / "faces")
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(tmp_path))
    names = [f"faces/{person}/{number}.png" for number in range(4) for person in ("ann", "bob")]
    (tmp_path / "train.txt").write_text("\n".join(names[:5]), encoding="utf-8")
    (tmp_path / "test.txt").write_text("\n".join(names[5:]), encoding="utf-8")
    lists = f"given={tmp_path}/train.txt,,{tmp_path}/test.txt"
    output = staged(tmp_path / "faces.zip", tmp_path / "out", "--split-list", lists, "--split", "all=1,0,0")
    assert "images: 8 seen, 8 kept, 0 dropped" in output
    assert "split given: 5 train, 0 auxiliary, 3 evaluation" in output
    assert "split all: 8 train, 0 auxiliary, 0 evaluation" in output


def test_listed_identities_are_private_and_the_same_list_leaves_the_public_ones(tmp_path: Path) -> None:
    folder = people(tmp_path / "people")
    shutil.copytree(people(tmp_path / "more", shift=20) / "ann", folder / "Carl_Orff")
    shutil.copytree(people(tmp_path / "most", shift=33) / "ann", folder / "dan")
    listed = tmp_path / "PRIVATE.txt"
    listed.write_text("Carl Orff\nann\n", encoding="utf-8")
    output = staged(folder, tmp_path / "out", "--name", "private", "--identities", listed)
    digest = hashlib.sha256(listed.read_bytes()).hexdigest()
    assert "dropped: 8 class not listed" in output
    assert f"identities: classes in the order of the list, sha256 {digest}" in output
    staged(folder, tmp_path / "out", "--name", "public", "--exclude", listed)
    there = Location(DirectoryBlobs(tmp_path / "out"))
    assert describe("private", there).class_names == ("Carl_Orff", "ann")
    assert describe("public", there).class_names == ("bob", "dan")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--split-list", "default=list.txt"],
            "--split-list=default=list.txt must read NAME=TRAIN,AUXILIARY,EVALUATION, three files of which "
            "some may be empty; write default=trainset.txt,,testset.txt.",
        ),
        (
            ["--split-list", "a=list.txt,,", "--split-list", "a=,list.txt,"],
            "--split-list=a=,list.txt, gives a split of that name a second time; drop one.",
        ),
        (
            ["--split-list", "a=list.txt,,", "--split", "a=1,0,0"],
            "--split-list=a is a split that --split draws; drop one of them.",
        ),
        (
            ["--split-list", "a=absent.txt,,"],
            "--split-list=absent.txt cannot be read as text ([Errno 2] No such file or directory: "
            "'absent.txt'); give a UTF-8 file, one image a line.",
        ),
        (
            ["--split-list", "a=list.txt,,"],
            "--split-list=list.txt names 'zoe/0.png', which no image has (1 of 2 names of the split); "
            "correct the list, whose lines are FILE or FILE LABEL, or give the SOURCE that it was made for.",
        ),
        (
            ["--identities", "list.txt"],
            "--identities lists 'ann/0.png', which is no class with images (2 of 2 names); correct the list; "
            "a class is named like 'ann'.",
        ),
    ],
)
def test_lists_are_refused_in_one_line(
    flags: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    people(tmp_path / "people")
    Path("list.txt").write_text("ann/0.png\nzoe/0.png\n", encoding="utf-8")
    result = stage("people", "out", *flags)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"error: {message}\n"
    assert not Path("out").exists()


def test_standard_splits_are_drawn_without_the_option(tmp_path: Path) -> None:
    output = staged(people(tmp_path / "people"), tmp_path / "out")
    assert "split default: 4 train, 2 auxiliary, 2 evaluation" in output
    assert "split half: 4 train, 0 auxiliary, 4 evaluation" in output
    assert "split eighty: 6 train, 0 auxiliary, 2 evaluation" in output


def broken(folder: Path) -> Path:
    (people(folder) / "ann" / "list.txt").write_text("not an image")
    return folder


def bomb(folder: Path) -> Path:
    header = b"P5 9000 9000 255\n" + struct.pack("B", 0) * 100
    (people(folder) / "bob" / "bomb.pgm").write_bytes(header)
    return folder


def packed(folder: Path, *, gitignore: bool) -> set[str]:
    """Return the files that Ray packs of a job's working directory."""
    package = folder.parent / "package.zip"
    package.unlink(missing_ok=True)
    create_package(str(folder), package, include_gitignore=gitignore)
    return set(zipfile.ZipFile(package).namelist())


def added(folder: Path) -> set[str]:
    """Return the files that `git add .` takes."""
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    words = ["git", "-C", str(folder), "add", "--dry-run", "."]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return {line.removeprefix("add '").removesuffix("'") for line in done.stdout.splitlines()}


@pytest.mark.parametrize("protection", ["folder", "project"])
@pytest.mark.parametrize("dest", ["DATASETS/", "deep/er/sets of people", "."])
def test_staged_images_and_weights_do_not_travel(
    dest: str, protection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (work / "study.yaml").write_text("study: mine\n")
    staged("digits", dest)
    stage_weights({"weight": torch.ones(2, 2)}, "net", DirectoryBlobs(dest), "net")
    if protection == "project":  # staged before sets had ignore files, or copied without them
        for file in [*work.rglob(".gitignore"), *work.rglob(".rayignore")]:
            file.unlink()
        assert len(packed(work, gitignore=True)) == 9
        for name in (".gitignore", ".rayignore"):
            shutil.copy(ROOT / name, work / name)
    mine = {"study.yaml"} | {path.name for path in work.iterdir() if path.is_file()}
    assert added(work) == mine
    for gitignore in (True, False):  # RAY_RUNTIME_ENV_IGNORE_GITIGNORE=1 has Ray pass over .gitignore
        assert {name for name in packed(work, gitignore=gitignore) if not name.startswith(".git/")} == mine


def test_images_in_the_working_directory_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    people(tmp_path / "photos")
    take = "git add . and ray job submit --working-dir ."
    source = (
        f"warning: SOURCE=photos lies in the working directory: {take} take it along; move it elsewhere, "
        "or list it in .gitignore and .rayignore.\n"
    )
    dest = (
        "warning: DEST=sets/ lies in the working directory: the ignore files in its folders keep them out of "
        f"{take}, a location elsewhere needs none.\n"
    )
    assert stage("photos", "sets/").stderr == source + dest
    assert stage("photos", tmp_path.parent / f"{tmp_path.name}-sets").stderr == source
    assert stage(tmp_path / "photos", f"{tmp_path}/sets/").stderr == (source + dest).replace(
        "=", f"={tmp_path}/"
    )
    (tmp_path / ".rayignore").write_text("/photos/\nsets\n")
    assert stage("photos", "sets/").stderr == ""


def test_an_image_folder_and_skipping_what_is_no_image(tmp_path: Path) -> None:
    output = staged(broken(tmp_path / "people"), tmp_path / "out", "--on-bad", "skip", "--size", 16)
    assert "images: 9 seen, 8 kept, 1 dropped; 2 classes, 16x16x1" in output
    assert "dropped: 1 not an image" in output


def test_a_class_left_with_too_few_images_is_named_and_left_out_on_request(tmp_path: Path) -> None:
    folder = people(tmp_path / "people")
    (folder / "carl").mkdir()
    for number, data in enumerate(
        (b"<html>404</html>", b"<html>", b"", (folder / "ann" / "0.png").read_bytes())
    ):
        (folder / "carl" / f"{number}.png").write_bytes(data)
    (folder / "carl" / "5.png").write_bytes((folder / "bob" / "0.png").read_bytes()[::-1])
    output = staged(folder, tmp_path / "out", "--on-bad", "skip", "--min-images", 3)
    assert "2 classes, 8x8x1" in output
    assert "images: 13 seen, 8 kept, 5 dropped" in output
    assert "already staged" in staged(folder, tmp_path / "out", "--on-bad", "skip", "--min-images", 3)


def test_a_refusal_leaves_nothing_behind(tmp_path: Path) -> None:
    folder, out = broken(tmp_path / "people"), tmp_path / "new" / "out"
    assert stage(folder, out).exit_code == 2
    assert not (tmp_path / "new").exists()
    (tmp_path / "new").mkdir()
    assert stage(folder, out).exit_code == 2
    assert list((tmp_path / "new").iterdir()) == []


def test_parts_of_a_folder_are_its_published_split(tmp_path: Path) -> None:
    for part in ("train", "val"):
        people(tmp_path / "set" / part, shift=20 if part == "val" else 0)
    output = staged(tmp_path / "set", tmp_path / "out")
    assert "2 classes, 8x8x1" in output
    assert "split original: 8 train, 0 auxiliary, 8 evaluation" in output
    assert "split default: 8 train, 4 auxiliary, 4 evaluation" in output


def test_images_without_classes_are_staged_as_an_auxiliary_set(tmp_path: Path) -> None:
    faces = people(tmp_path / "ffhq")
    output = staged(faces, tmp_path / "out", "--unlabelled")
    assert "images: 8 seen, 8 kept, 0 dropped; 1 class without labels, 8x8x1" in output
    about = describe("ffhq", Location(DirectoryBlobs(tmp_path / "out")))
    assert (about.class_names, about.is_labelled) == (("unlabelled",), False)
    refused = stage(faces, tmp_path / "out")
    assert refused.exit_code == 2
    assert "already holds another set" in refused.stderr
    assert "1 class without labels" in staged("digits", tmp_path / "out", "--unlabelled", "--name", "numbers")


def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    folder, out = people(tmp_path / "people"), tmp_path / "out"
    staged(folder, out)
    cases: list[tuple[tuple[object, ...], str]] = [
        ((broken(tmp_path / "a"), out), "list.txt is no PNG, JPEG, WEBP or PGM image; remove it"),
        ((bomb(tmp_path / "b"), out), "bomb.pgm has more than 25 million pixels"),
        ((tmp_path / "absent", out), "absent is unknown and no such path exists; known are digits"),
        (("imagenet", out), "SOURCE=imagenet is unknown"),
        (("mnist:/no/such", out), "SOURCE=mnist:/no/such needs an existing folder"),
        ((folder, "ftp://host/x"), "unknown scheme"),
        (("a" * 5000, out), "is unknown and no such path exists; known are digits"),
        ((f"mnist:{'a' * 5000}", out), "needs an existing folder after mnist:"),
        ((folder, out, "--exclude", "x\0y"), "cannot be read as text (embedded null byte); give a UTF-8"),
        ((folder, out, "--crop", "0,0," + "9" * 5000), "must read LEFT,TOP,SIDE or centre"),
        ((folder, out, "--split", "a=0.1.2,0.5,0.5"), "--split=a=0.1.2,0.5,0.5 must read NAME=TRAIN"),
        ((folder, out, "--split", f"a=1,0,0@{'9' * 5000}"), "must read NAME=TRAIN,AUXILIARY,EVALUATION@SEED"),
        (
            (folder, out, "--split", "a=1,0,0", "--split", "a=0,0,1"),
            "--split=a=0,0,1 gives a split of that name a second time; drop one.",
        ),
        ((folder, out, "--size", 1_000_000), "--size=1000000 is refused: Input should be less than or equal"),
        ((folder, out, "--channels", 2), "--channels=2 is refused: Input should be 1 or 3"),
        (
            (folder, out, "--on-bad", "ignore"),
            "--on-bad=ignore is refused: Input should be 'error' or 'skip'",
        ),
        ((folder, out, "--split", "half"), "--split=half must read NAME=TRAIN,AUXILIARY,EVALUATION@SEED"),
        ((folder, out, "--name", "n", "--split", "s=0.5,0.1,0.1"), "sum to 1"),
        ((folder, out, "--name", "digits"), "--name=digits belongs to the built-in set"),
        ((folder, out, "--name", "No"), "--name=No must be lower-case letters"),
        (
            (folder, out, "--crop", "1,2"),
            "--crop=1,2 must read LEFT,TOP,SIDE or centre or PART/WHOLE; write for instance 35",
        ),
        ((folder, out, "--crop", "1,2,0"), "--crop=1,2,0 must read LEFT,TOP,SIDE or centre"),
        (
            (folder, out, "--crop", "129/128"),
            "--crop=129/128 must be a share of each side; write for instance 88/128.",
        ),
        ((folder, out, "--crop", "0/64"), "--crop=0/64 must read LEFT,TOP,SIDE or centre or PART/WHOLE"),
        (
            (folder, out, "--name", "n", "--crop", "4,0,5"),
            "0.png is 8x8, so the crop LEFT,TOP,SIDE=4,0,5 leaves",
        ),
        ((folder, out, "--exclude", tmp_path / "none"), "none cannot be read as text"),
        ((folder, out, "--max-images", -1), "--max-images=-1 is refused: Input should be greater than 0"),
        (("facescrub:/no/such", out), "SOURCE=facescrub:/no/such needs an existing folder"),
        ((f"celeba:{folder}", out), "holds no identity_CelebA.txt (looked in ., Anno, celeba)"),
        ((folder, out, "--size", 4), "already holds another set"),
        (
            (folder, out, "--name", "n", "--min-images", 5),
            "has no images; check the source, --exclude, --min",
        ),
    ]
    for arguments, text in cases:
        result = stage(*arguments)
        assert result.exit_code == 2, (arguments, result.output)
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
        assert text in line
        assert result.stdout == ""

"""Built-in and staged sets by name; a turned bit is always found."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.datasets

from orchestrator.config.base import Refused
from orchestrator.datasets import (
    Dataset,
    Location,
    describe,
    footprint,
    load,
    load_labels,
    shards,
    staging,
    verify,
)
from orchestrator.datasets.builtin import BUILTINS, OPTIONS, MemoryBlobs, digits
from orchestrator.datasets.manifest import Options
from orchestrator.datasets.shards import Shards
from orchestrator.datasets.staging import publish
from orchestrator.store.directory import DirectoryBlobs


@pytest.fixture
def blobs(tmp_path: Path) -> DirectoryBlobs:
    """A store that holds the digits as a set of another name."""
    there = DirectoryBlobs(tmp_path / "store")
    publish(digits(), Options(), there, "numbers")
    return there


def shard(blobs: DirectoryBlobs) -> Path:
    (name,) = blobs.names("numbers/images-")
    return blobs.path / name


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_digits_are_scikit_learns_enlarged_and_scaled() -> None:
    dataset, original = load("digits", Location()), sklearn.datasets.load_digits()
    assert dataset.images.shape == (1797, 32, 32, 1)
    assert dataset.images[:].dtype == np.uint8
    assert dataset.images[:].max() == 255
    assert dataset.labels.tolist() == original.target.tolist()
    # The mean of each 4x4 block of an enlarged image follows the pixel it came from.
    blocks = dataset.images[:].reshape(1797, 8, 4, 8, 4).mean(axis=(2, 4))
    assert np.corrcoef(blocks.ravel(), original.images.ravel())[0, 1] > 0.97


def test_patches_are_cut_from_the_two_photographs() -> None:
    dataset = load("photo-patches", Location())
    assert dataset.images.shape == (2000, 32, 32, 3)
    assert np.bincount(dataset.labels).tolist() == [1000, 1000]
    photo = sklearn.datasets.load_sample_image("flower.jpg")
    patch = dataset.images[:][1500]
    corners = np.argwhere((photo[:-31, :-31] == patch[0, 0]).all(axis=2))
    assert any(np.array_equal(photo[row : row + 32, column : column + 32], patch) for row, column in corners)


@pytest.mark.parametrize("name", BUILTINS)
def test_built_in_sets_are_described_without_a_location(name: str) -> None:
    about = describe(name, Location())
    assert about.source == "built-in"
    assert about == verify(name, Location()) == load(name, Location()).description
    assert about.splits == ("default", "eighty", "even", "half")
    assert about.num_bytes == load(name, Location()).images[:].nbytes
    assert about.class_names == load(name, Location()).class_names


def test_a_built_in_set_and_its_staged_copy_have_one_digest(tmp_path: Path) -> None:
    manifest, _ = publish(digits(), OPTIONS, DirectoryBlobs(tmp_path), "digits")
    assert manifest.kept == 1797
    there = Location(DirectoryBlobs(tmp_path))
    assert describe("digits", there).digest == describe("digits", Location()).digest


def test_a_staged_set_is_the_set_that_was_staged(blobs: DirectoryBlobs) -> None:
    dataset, original = load("numbers", Location(blobs)), load("digits", Location())
    assert np.array_equal(dataset.images[:], original.images[:])
    assert np.array_equal(dataset.splits["default"], original.splits["default"])
    assert dataset.class_names == original.class_names
    assert dataset.description.source == f"{blobs.uri}/numbers"


def test_one_process_loads_a_set_once_read_only(blobs: DirectoryBlobs) -> None:
    first = load("numbers", Location(blobs))
    assert load("numbers", Location(DirectoryBlobs(blobs.path))) is first
    with pytest.raises(ValueError, match="read-only"):
        first.images[:][0] = 0


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> int:
    """Make the digits a large set of four files; return the images in each of the first three."""
    monkeypatch.setattr(shards, "HELD_BYTES", 1_000_000)
    monkeypatch.setattr(staging, "SHARD_BYTES", 500 * 32 * 32)
    return 500


def test_a_large_set_is_mapped_and_only_what_is_asked_for_is_read(large: int, tmp_path: Path) -> None:
    there = Counting("mapped")
    publish(digits(), Options(), there, "numbers")
    there.pixels_read = 0
    mapped = load("numbers", Location(there, tmp_path)).images
    expected = load("digits", Location()).images[:]
    assert isinstance(mapped, Shards)
    about = describe("numbers", Location(there, tmp_path))
    assert footprint(about, Location(there, tmp_path)) == (1797, 1797 * 32 * 32, True)
    assert (mapped.shape, there.pixels_read) == (expected.shape, 0)
    some = np.array([1600, 3, large - 1, 1796])
    assert np.array_equal(mapped[some], expected[some])
    assert there.pixels_read == 2
    assert np.array_equal(mapped[:], expected)
    assert there.pixels_read == 4


def test_a_large_set_that_no_disk_holds_is_read_whole_with_a_warning(
    large: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blobs = Counting("in memory")
    publish(digits(), Options(), blobs, "numbers")
    there = Location(blobs, tmp_path, cache_bytes=1_800_000)
    assert isinstance(load("numbers", there).images, np.ndarray)
    assert not footprint(describe("numbers", there), there).is_mapped
    assert not footprint(describe("digits", there), there).is_mapped  # built in
    assert "event=set_not_mapped set=numbers bytes=1840128" in caplog.text


def test_a_large_set_is_mapped_where_the_disk_has_room_for_what_is_not_cached_of_it(
    large: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Counting("on a small disk"), Counting("on a small disk, again")
    for blobs in (first, second):
        publish(digits(), Options(), blobs, "numbers")
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1_800_000))
    whole = load("numbers", Location(first, tmp_path)).images
    assert isinstance(whole, np.ndarray)
    assert "event=set_not_mapped set=numbers bytes=1840128" in caplog.text
    second.pixels_read = 0
    mapped = load("numbers", Location(second, tmp_path)).images
    assert isinstance(mapped, Shards)
    assert np.array_equal(mapped[:], whole)
    assert second.pixels_read == 0


def test_a_turned_bit_in_a_mapped_file_is_found_when_its_images_are_asked_for(
    large: int, blobs: DirectoryBlobs
) -> None:
    publish(digits(), Options(), blobs, "numbers")
    images = load("numbers", Location(blobs)).images
    flip(blobs.path / blobs.names("numbers/images-00002")[0])
    assert len(images[np.arange(2 * large)]) == 2 * large
    with pytest.raises(ValueError, match=r"numbers/images-00002-\w{12}\.npy does not match its manifest"):
        images[np.array([2 * large])]


def test_a_mapped_file_of_other_images_than_its_manifest_says_is_found(
    large: int, blobs: DirectoryBlobs
) -> None:
    data = blobs.get("numbers/manifest.json")
    assert data is not None
    blobs.put("numbers/manifest.json", data.replace(b"32,\n  32,\n  1", b"16,\n  64,\n  1"))
    images = load("numbers", Location(blobs)).images
    assert images.shape == (1797, 16, 64, 1)
    with pytest.raises(ValueError, match=r"numbers has images-00000-\w{12}\.npy of .* remove that folder"):
        images[:1]


def test_an_unknown_name_lists_the_known_ones(blobs: DirectoryBlobs) -> None:
    with pytest.raises(
        ValueError, match=r"dataset=mnits is unknown; built in are digits, photo-patches, staged at"
    ):
        describe("mnits", Location(blobs))
    with pytest.raises(ValueError, match="are numbers; correct the name or stage"):
        describe("../numbers", Location(blobs))
    with pytest.raises(ValueError, match="others need a data location"):
        describe("mnist", Location())


def test_the_refusal_of_an_unknown_name_can_be_put_below_a_section() -> None:
    with pytest.raises(Refused, match=r"^dataset=mnist is unknown") as caught:
        describe("mnist", Location())
    assert (caught.value.field, caught.value.value) == ("dataset", "mnist")
    assert str(caught.value.under("auxiliary")).startswith("auxiliary.dataset=mnist is unknown; built in are")


@pytest.mark.parametrize("cached", [False, True])
def test_a_turned_bit_in_a_shard_is_found(blobs: DirectoryBlobs, tmp_path: Path, cached: bool) -> None:
    location = Location(blobs, tmp_path / "cache" if cached else None)
    flip(shard(blobs))
    digest = "[0-9a-f]{64}"
    text = rf"numbers/images-00000-\w{{12}}\.npy does not match .* want SHA-256 {digest}, got {digest}; "
    with pytest.raises(ValueError, match=text + "remove the set's folder and stage it again"):
        verify("numbers", location)
    with pytest.raises(ValueError, match=text):
        load("numbers", location)


def test_a_missing_file_is_found(blobs: DirectoryBlobs) -> None:
    shard(blobs).unlink()
    with pytest.raises(ValueError, match="got no such file"):
        verify("numbers", Location(blobs))


def test_a_broken_manifest_is_one_line(blobs: DirectoryBlobs) -> None:
    blobs.put("numbers/manifest.json", b"{}")
    with pytest.raises(
        ValueError, match=r"numbers/manifest.json is no manifest of format 1 \(name: Field required"
    ):
        describe("numbers", Location(blobs))


@pytest.mark.parametrize(
    "change",
    [
        {"kept": 1796},
        {"kept": 0},
        {"images": []},
        {"image_shape": [32, 32, 3]},
        {"image_shape": [31, 33, 1]},
        {"kept": 1797 * 2, "image_shape": [16, 32, 1]},
        {"kept": 2**60},
    ],
)
def test_a_manifest_that_counts_otherwise_than_its_shards_is_found(
    blobs: DirectoryBlobs, change: dict[str, object]
) -> None:
    data = blobs.get("numbers/manifest.json")
    assert data is not None
    blobs.put("numbers/manifest.json", json.dumps({**json.loads(data), **change}).encode())
    with pytest.raises(ValueError, match=r"^file:\S+/numbers has .*; remove that folder and stage the set"):
        load("numbers", Location(blobs))


ELSEWHERE = ["../labels-", "/labels-", "labels-/../", "splits/../labels-", ".labels-", "labels\n-"]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_no_name_in_a_manifest_leads_out_of_the_folder(blobs: DirectoryBlobs, name: str) -> None:
    data = blobs.get("numbers/manifest.json")
    assert data is not None
    manifest = json.loads(data)
    manifest["labels"]["name"] = name + manifest["labels"]["name"].removeprefix("labels-")
    blobs.put("numbers/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(ValueError, match=r"labels\.name: String should match pattern"):
        load("numbers", Location(blobs))


def test_a_split_cannot_be_called_as_what_lies_above(blobs: DirectoryBlobs) -> None:
    data = blobs.get("numbers/manifest.json")
    assert data is not None
    manifest = json.loads(data)
    manifest["splits"]["half"]["file"]["name"] = "splits/..-0123456789ab.npy"
    blobs.put("numbers/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(ValueError, match=r"^blob name 'numbers/splits/\.\.-0123456789ab\.npy' must be"):
        load_labels("numbers", Location(blobs))


def test_a_manifest_cannot_name_files_elsewhere(blobs: DirectoryBlobs) -> None:
    data = blobs.get("numbers/manifest.json")
    assert data is not None
    blobs.put("numbers/manifest.json", data.replace(b"labels-", b"../labels-"))
    with pytest.raises(ValueError, match=r"labels\.name: String should match pattern"):
        describe("numbers", Location(blobs))


class Counting(MemoryBlobs):
    """Blobs that count the reads."""

    reads = 0
    pixels_read = 0

    def get(self, name: str) -> bytes | None:
        if name.endswith(".npy"):
            self.reads += 1
        self.pixels_read += "images-" in name
        return super().get(name)


@pytest.fixture
def counting() -> Counting:
    there = Counting("memory")
    publish(digits(), Options(), there, "numbers")
    there.reads = 0
    return there


def test_a_node_downloads_each_file_once(counting: Counting, tmp_path: Path) -> None:
    location = Location(counting, tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: verify("numbers", location), range(8)))
    assert counting.reads == 5  # one shard, labels, three splits
    names = sorted(path.name for path in tmp_path.iterdir() if not path.suffix)
    assert all(len(name) == 64 for name in names)
    assert len(names) == 5


def test_labels_are_read_without_a_pixel_and_verified(counting: Counting) -> None:
    there = Location(counting)
    labels, splits = load_labels("numbers", there)
    assert counting.pixels_read == 0
    dataset = load("numbers", there)
    assert np.array_equal(labels, dataset.labels)
    assert all(np.array_equal(splits[name], codes) for name, codes in dataset.splits.items())
    with pytest.raises(ValueError, match="read-only"):
        labels[0] = 1


def test_a_turned_bit_in_the_labels_is_found(blobs: DirectoryBlobs) -> None:
    (name,) = blobs.names("numbers/labels-")
    flip(blobs.path / name)
    with pytest.raises(ValueError, match=r"numbers/labels-\w{12}\.npy does not match its manifest"):
        load_labels("numbers", Location(blobs))


def test_a_turned_bit_in_the_cache_is_downloaded_again(counting: Counting, tmp_path: Path) -> None:
    location = Location(counting, tmp_path)
    verify("numbers", location)
    largest = max((path for path in tmp_path.iterdir()), key=lambda path: path.stat().st_size)
    flip(largest)
    verify("numbers", location)
    assert counting.reads == 6
    verify("numbers", location)
    assert counting.reads == 6


def test_the_cache_stays_below_its_limit(counting: Counting, tmp_path: Path) -> None:
    dataset: Dataset = load("numbers", Location(counting, tmp_path, cache_bytes=20_000))
    assert dataset.images[:].nbytes > 20_000
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 20_000


def test_a_plan_needs_no_torch() -> None:
    code = "import sys, orchestrator.datasets, orchestrator.datasets.classes; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"

"""Built-in sets without a download: scikit-learn's handwritten digits and patches of its two photographs.

`digits`: 8x8 images with values 0..16 (UCI optical recognition of handwritten digits, test part, CC BY 4.0),
scaled to 0..255 and enlarged bilinearly to 32x32. `photo-patches`: 2000 patches of 32x32 RGB from china.jpg
and flower.jpg (CC BY), the unrelated images of the distinct auxiliary set. Both are staged like any other
set, in memory, so their digests are comparable.
"""

import functools
import gzip
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets.manifest import Options, SplitRule, standard_splits
from orchestrator.datasets.sources.base import Source, array_source, fingerprint_of
from orchestrator.datasets.sources.decoding import decode
from orchestrator.datasets.staging import publish
from orchestrator.store.blobs import Blobs, Entry

OPTIONS = Options(splits={**standard_splits(), "even": SplitRule(fractions=(0.4, 0.4, 0.2))})
"""`even` gives the adversary as many images as the target model: a quarter of so small a set is too few."""

PHOTOS = ("china", "flower")
SIDE = 32
PATCHES_PER_PHOTO = 1000
PATCH_SEED = 0


class MemoryBlobs:
    """Blobs in this process's memory."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._objects: dict[str, bytes] = {}

    def get(self, name: str) -> bytes | None:
        """Return the object's bytes, or None if there is none."""
        return self._objects.get(name)

    def put(self, name: str, data: bytes, *, overwrite: bool = True) -> bool:
        """Store the object; without `overwrite` return False if the name is taken."""
        if not overwrite and name in self._objects:
            return False
        self._objects[name] = data
        return True

    def names(self, prefix: str) -> list[str]:
        """Return the sorted names that start with `prefix`."""
        return sorted(name for name in self._objects if name.startswith(prefix))

    def entries(self, prefix: str) -> list[Entry]:
        """Return the sorted names that start with `prefix`, with sizes in bytes and time 0."""
        return [Entry(name, len(self._objects[name]), 0) for name in self.names(prefix)]

    def remove(self, name: str) -> None:
        """Remove the object, if there is one."""
        self._objects.pop(name, None)


def digits() -> Source:
    """Return 1797 handwritten digits, (32, 32, 1) uint8, in 10 classes.

    Raise `Refused` if scikit-learn is not installed.
    """
    data = _bundled("data/digits.csv.gz")
    table = np.loadtxt(gzip.decompress(data).decode("ascii").splitlines(), delimiter=",", dtype=np.float64)
    small = np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    images = np.stack([_enlarge(image) for image in small])[..., None]
    fingerprint = fingerprint_of([("digits.csv.gz", data)])
    return array_source("digits", images, table[:, -1].astype(np.int64), map(str, range(10)), fingerprint)


def photo_patches() -> Source:
    """Return 1000 patches (32, 32, 3) uint8 of each photograph, at positions drawn without replacement.

    Raise `Refused` if scikit-learn is not installed.
    """
    files = [(photo, _bundled(f"images/{photo}.jpg")) for photo in PHOTOS]
    rng = np.random.default_rng(PATCH_SEED)
    images = np.concatenate([_patches(decode(data, photo), rng) for photo, data in files])
    labels = np.repeat(np.arange(len(PHOTOS)), PATCHES_PER_PHOTO)
    return array_source("photo-patches", images, labels, PHOTOS, fingerprint_of(files))


BUILTINS: dict[str, Callable[[], Source]] = {"digits": digits, "photo-patches": photo_patches}


@functools.cache
def staged(name: str) -> Blobs:
    """Return the built-in set `name`, staged in memory once for each process."""
    blobs = MemoryBlobs("built-in")
    publish(BUILTINS[name](), OPTIONS, blobs, name)
    return blobs


def _bundled(path: str) -> bytes:
    """Return one of scikit-learn's data files without importing the library, which takes over a second."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise Refused(f"the file {path} of scikit-learn", NO_VALUE, "is missing", "install scikit-learn")
    return (Path(spec.origin).parent / "datasets" / path).read_bytes()


def _enlarge(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _patches(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    rows, columns = photo.shape[0] - SIDE + 1, photo.shape[1] - SIDE + 1
    places = rng.choice(rows * columns, size=PATCHES_PER_PHOTO, replace=False)
    corners = np.stack(np.divmod(places, columns), axis=1)
    return np.stack([photo[row : row + SIDE, column : column + SIDE] for row, column in corners])

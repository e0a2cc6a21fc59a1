"""The manifest of a staged data set: what was seen, kept and dropped, and the checksum of every file.

It is written last, so its existence means that the set is whole; its own SHA-256 is the digest of the set.
"""

import hashlib
import json
import re
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, ValidationError

from orchestrator.config import Seed, Spec

FORMAT = 1
AMI_SEED = 666  # of the split in AMI's released code
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
ARRAYS = r"(images-\d{5}|labels|splits/[a-z0-9._-]{1,64})-[0-9a-f]{12}\.npy"
WEIGHTS = r"weights-[0-9a-f]{12}\.safetensors"
FileName = Annotated[str, Field(pattern=rf"^({ARRAYS}|{WEIGHTS})$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class File(Spec):
    """One file beside the manifest."""

    name: FileName
    size: PositiveInt
    sha256: Digest


class SplitRule(Spec):
    """How a split is drawn."""

    fractions: tuple[float, float, float] = (0.5, 0.25, 0.25)
    """Shares of train, auxiliary and evaluation."""

    seed: Seed = 0


class Split(Spec):
    """A split file; `rule` is None where the source itself fixes the parts."""

    file: File
    rule: SplitRule | None
    counts: tuple[int, int, int]
    """Images in train, auxiliary and evaluation."""


def standard_splits() -> dict[str, SplitRule]:
    """Return the splits of a set that is staged without any: ours and the two of AMI, Table I."""
    return {
        "default": SplitRule(),
        "half": SplitRule(fractions=(0.5, 0.0, 0.5), seed=AMI_SEED),
        "eighty": SplitRule(fractions=(0.8, 0.0, 0.2), seed=AMI_SEED),
    }


class Exclusion(Spec):
    """The list of classes that were left out: what a claim of disjoint identities rests on."""

    sha256: Digest
    """Of the list's file."""

    names: PositiveInt
    """Different names on the list."""

    found: Count
    """How many of them were classes of the source."""


class Options(Spec):
    """What the person who stages a set may choose."""

    crop: tuple[Count, Count, PositiveInt] | Literal["centre"] | None = None
    """Square cut out before resizing: left, top and side in pixels, or the largest one in the centre."""

    stretch: bool = False
    """Whether images that are not square are admitted; they are stretched to squares when resized."""

    size: PositiveInt | None = None
    """Side in pixels to resize to; None keeps the size."""

    channels: Literal[1, 3] | None = None
    """1 converts to grey, 3 to RGB, None keeps what there is."""

    splits: dict[str, SplitRule] = Field(default_factory=standard_splits)

    on_bad: Literal["error", "skip"] = "error"
    """Whether a file that is not an acceptable image ends the staging or is left out and counted."""

    duplicates: Literal["drop", "keep"] = "drop"
    """Whether an image equal to an earlier one is left out."""

    min_images: PositiveInt = 1
    """Classes with fewer images are left out."""

    max_images: PositiveInt | None = None
    """Classes with more images are left out; None has no limit."""

    per_class: PositiveInt | None = None
    """At most so many images of each class, drawn by a fixed seed; None keeps all."""

    exclude: Exclusion | None = None
    """The list of classes that are left out."""


class Manifest(Spec):
    """Everything about a staged set except its pixels."""

    format: Literal[1] = 1
    name: str
    source: str
    """Kind of source, such as `mnist` or `image-folder`; no path, so that the digest depends on content."""

    source_sha256: Digest
    """Digest over the names and bytes of the source's files."""

    options: Options
    seen: Count
    kept: Count
    dropped: dict[str, int]
    """Images left out, by reason."""

    dropped_names: tuple[str, ...]
    """The first of each reason by name."""

    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    """Height, width, channels."""

    images: tuple[File, ...]
    labels: File
    splits: dict[str, Split]


def sha256(data: bytes) -> str:
    """Return the hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def dump(manifest: Manifest) -> bytes:
    """Return the canonical bytes, whose SHA-256 is the set's digest."""
    return (json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True) + "\n").encode("ascii")


def parse(data: bytes, where: str) -> Manifest:
    """Read a manifest that came from a store."""
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ValueError(
            f"{where} is no manifest of format {FORMAT} ({field or 'file'}: {first['msg']}); "
            "remove that folder and stage the set again."
        ) from None

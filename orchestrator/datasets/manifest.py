"""Manifest of a staged data set: options, counts of images kept and dropped, and the SHA-256 of every file.

It is written last, so its existence means that the set is whole; its own SHA-256 is the digest of the set.
"""

import json
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt, ValidationError

from orchestrator.config import Seed, Spec
from orchestrator.config.base import NO_VALUE, Refused, added_field

FORMAT = 1
AMI_SEED = 666  # of the splits in AMI's released code
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
ARRAYS = r"(images-\d{5}|labels|splits/[a-z0-9._-]{1,64})-[0-9a-f]{12}\.npy"
WEIGHTS = r"weights-[0-9a-f]{12}\.safetensors"
PROGRAMS = r"program-[0-9a-f]{12}\.(pt2?|onnx)"
FileName = Annotated[str, Field(pattern=rf"^({ARRAYS}|{WEIGHTS}|{PROGRAMS})$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MAX_SIDE = 4096  # of images, in pixels
Count = Annotated[int, Field(ge=0)]


class File(Spec):
    """Name, size in bytes and checksum of one file beside the manifest."""

    name: FileName
    size: PositiveInt
    sha256: Digest


class SplitRule(Spec):
    """Fractions and seed of a stratified random split."""

    fractions: tuple[float, float, float] = (0.5, 0.25, 0.25)
    """Of train, auxiliary and evaluation, >= 0 and summing to 1."""

    seed: Seed = 0


class Split(Spec):
    """A split file; `rule` is None for a split that the source publishes or that lists gave."""

    file: File
    rule: SplitRule | None
    counts: tuple[int, int, int]
    """Images in train, auxiliary and evaluation."""


def standard_splits() -> dict[str, SplitRule]:
    """Return the splits of a set staged without --split: ours and the two of AMI, Table I."""
    return {
        "default": SplitRule(),
        "half": SplitRule(fractions=(0.5, 0.0, 0.5), seed=AMI_SEED),
        "eighty": SplitRule(fractions=(0.8, 0.0, 0.2), seed=AMI_SEED),
    }


class Exclusion(Spec):
    """Record of the list of classes left out, on which claims of disjoint identities rest."""

    sha256: Digest
    """Of the list's file."""

    names: PositiveInt
    """Distinct names on the list."""

    found: Count
    """Names that were classes of the source."""


class Identities(Spec):
    """Record of the list of classes that are kept, in its order."""

    sha256: Digest
    """Of the list's file."""

    names: PositiveInt


class ListedSplit(Spec):
    """Record of the lists of image names that gave a split."""

    sha256: tuple[Digest | None, Digest | None, Digest | None]
    """Of the files for train, auxiliary and evaluation; None: an empty part."""

    names: tuple[Count, Count, Count]
    """Images named in each."""

    labels: Count = 0
    """Distinct labels in the files, of which each is one class of the source; 0: they have none."""

    is_numbered: bool = False
    """Whether these labels are 0..labels-1."""


def is_share(crop: object) -> bool:
    """Return whether a crop is PART/WHOLE of each side."""
    return isinstance(crop, str) and "/" in crop


def _no_more_than_all(share: str) -> str:
    part, whole = map(int, share.split("/"))
    if part > whole:
        raise ValueError("the part must not exceed the whole")
    return share


SHARE = r"^[1-9][0-9]{0,5}/[1-9][0-9]{0,5}$"
CentreShare = Annotated[str, Field(pattern=SHARE), AfterValidator(_no_more_than_all)]


class Options(Spec):
    """User options of `jobs.stage_data`."""

    crop: tuple[Count, Count, PositiveInt] | Literal["centre"] | CentreShare | None = None
    """Part cropped before resizing: a square by left, top and side in pixels, the largest square in the
    centre, or the centre PART/WHOLE of each side, such as 88/128."""

    stretch: bool = False
    """Whether to admit images that are not square; resizing stretches them to squares."""

    size: Annotated[int, Field(gt=0, le=MAX_SIDE)] | None = None
    """Side in pixels to resize to; None keeps the size."""

    channels: Literal[1, 3] | None = None
    """1 converts to grey, 3 to RGB, None keeps the channels."""

    splits: dict[str, SplitRule] = Field(default_factory=standard_splits)

    on_bad: Literal["error", "skip"] = "error"
    """Whether a file that is not an acceptable image ends the staging or is dropped and counted."""

    duplicates: Literal["drop", "keep"] = "drop"
    """Whether to drop an image equal to an earlier one."""

    min_images: PositiveInt = 1
    """Classes with fewer images, unusable ones and copies not counted, are dropped."""

    max_images: PositiveInt | None = None
    """Classes with more images are dropped; None sets no limit."""

    per_class: PositiveInt | None = None
    """Images drawn of each class at most, by a fixed seed; None keeps all."""

    exclude: Exclusion | None = None
    """Record of the list of classes left out."""

    unlabelled: bool = added_field(False)
    """Whether the images have no classes; such a set is an auxiliary set or a prior's, never private."""

    identities: Identities | None = added_field(None)
    """Record of the list of classes that are kept, in its order."""

    split_lists: dict[str, ListedSplit] = added_field({})
    """Splits given by lists of image names; the set has no other images."""


class Manifest(Spec):
    """Everything about a staged set except its arrays."""

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
    """Reason -> images dropped."""

    dropped_names: tuple[str, ...]
    """Names of the first images dropped for each reason."""

    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    """Height, width, channels."""

    images: tuple[File, ...]
    labels: File
    splits: dict[str, Split]


def dump(manifest: Manifest) -> bytes:
    """Return the manifest's canonical JSON, whose SHA-256 is the set's digest."""
    return (json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True) + "\n").encode("ascii")


def parse(data: bytes, where: str) -> Manifest:
    """Return the manifest in bytes from a store; raise `Refused` under the name `where` if it is not one."""
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        rule = f"is no manifest of format {FORMAT} ({field or 'file'}: {first['msg']})"
        raise Refused(where, NO_VALUE, rule, "remove that folder and stage the set again") from None

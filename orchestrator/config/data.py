"""Image sets of a trial: the private data set and the adversary's own images."""

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.config.base import Count, Seed, Spec


class Data(Spec):
    """The private data set: which images, which classes may be private, which split file."""

    dataset: str
    """A built-in name (`digits`) or the name of a staged data set under the data location."""

    image_size: Annotated[int, Field(ge=8, le=512)] = 32
    """Side of the square images in pixels; bilinear with antialias where the stored size differs."""

    channels: Literal[1, 3] = 1
    """1 converts to grey (ITU-R 601), 3 to RGB."""

    normalisation: Literal["fixed", "per-position"] = "fixed"
    """fixed divides by 255. per-position is AMI's released code: each pixel position is stretched over its
    least and greatest value in its whole data set, test images included, and rounded to 8 bits."""

    split: str = "default"
    """Split file of the data set: every image is in `train`, `auxiliary` or `evaluation`."""

    class_pool: Count | None = None
    """Classes that may be private; pretraining and the generic auxiliary set use the others. None: all."""

    class_seed: Seed = 0
    """Orders the classes once; a target of k classes takes the first k, so smaller k are nested in larger."""


class Auxiliary(Spec):
    """The adversary's own images (AMI, section IV-A and Table I)."""

    kind: Literal["same-train", "same-heldout", "same-test", "generic", "distinct", "augmented"] = (
        "same-heldout"
    )
    """same-train: F's training images; same-heldout: other images of the same classes; same-test: F's test
    images themselves (Table I); generic: same kind of object, disjoint classes; distinct: unrelated images;
    augmented: same-train and generic together."""

    dataset: str | None = None
    """Source of generic, distinct or augmented images. None: the public classes of the private data set
    (generic, augmented) or the built-in photograph patches (distinct)."""

    overlap: Literal["refuse", "remove", "allow"] = "refuse"
    """Classes of a generic set that are also in the private pool, by name: refuse the study, leave their
    images out, or use them all the same."""

    size: Count | None = None
    """Images in the set; smaller sets are nested in larger ones. None takes all there are."""

    seed: Seed = 0
    """Orders the images before `size` cuts."""

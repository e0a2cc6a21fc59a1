"""Image sets of a trial: the private data set and the adversary's own images."""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from orchestrator.config.base import NO_VALUE, Count, Refused, Seed, Spec, added_field, one_line, shortened

ClassId = Annotated[int, Field(strict=True, ge=0, le=10_000_000)]
"""A place in the manifest; strict, as the text 0007 is the name of a class."""
ClassName = Annotated[str, Field(min_length=1, max_length=255)]
Order = Literal["seeded", "staged", "weights"]
ORDERS: tuple[str, ...] = get_args(Order)
ClassOrder = Order | tuple[ClassId, ...] | tuple[ClassName, ...]

_PLACE: TypeAdapter[int] = TypeAdapter(ClassId)
_NAME: TypeAdapter[str] = TypeAdapter(ClassName)


def _fits(kind: TypeAdapter[int] | TypeAdapter[str], value: object) -> bool:
    try:
        kind.validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


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

    class_order: ClassOrder = added_field("seeded")
    """Order in which classes become private: `seeded`, drawn by `class_seed`; `staged`, as in the data set's
    manifest; `weights`, that of the outputs of `target.weights`, `target.program` or `target.service`, by the
    names staged with them; or a list of class names (or of their places in the manifest), behind which the
    others follow as staged."""

    @field_validator("class_order", mode="before")
    @classmethod
    def _is_an_order(cls, value: object) -> object:
        if isinstance(value, str) and value not in ORDERS:
            raise ValueError(f"must be {', '.join(ORDERS)}, or a list of class names")
        if isinstance(value, list | tuple) and value:
            has_names = isinstance(value[0], str)
            kind, told = (_NAME, "class name") if has_names else (_PLACE, "place in the manifest (0, 1, ...)")
            for one in value:
                if not _fits(kind, one):
                    shown = one_line(shortened(repr(one)))
                    raise ValueError(
                        f"lists {shown}, which is no {told}; list class names or places, not both"
                    )
        return value

    @model_validator(mode="after")
    def _has_one_order(self) -> Self:
        order = self.class_order
        if order != "seeded" and self.class_seed:
            rule = "draws the order of classes, which data.class_order gives"
            raise Refused("class_seed", self.class_seed, rule, "leave one of them out")
        if isinstance(order, str):
            return self
        twice = next((one for place, one in enumerate(order) if one in order[:place]), None)
        if twice is not None or not order:
            rule = "is an empty list" if twice is None else f"names {twice} twice"
            raise Refused("class_order", NO_VALUE, rule, "name each class once, in the order of the outputs")
        return self


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

"""Base of all specs: a frozen record, refusals, and the parts that several specs share."""

import functools
import hashlib
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from enum import Enum, auto
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

T = TypeVar("T")
Scalar = str | int | float | bool
Count = Annotated[int, Field(gt=0, le=10_000_000)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Weight = Annotated[float, Field(ge=0.0, le=1e9)]
Positive = Annotated[float, Field(gt=0.0, le=1e9)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Intensity = Annotated[float, Field(ge=0.0, le=1.0)]
InstanceName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")]

MAX_SHOWN = 200
"""Characters of a value that a refusal shows."""


class _Absent(Enum):
    """An enum, so that a refusal that was pickled to another process still has the same object."""

    NO_VALUE = auto()


NO_VALUE = _Absent.NO_VALUE
"""Stands for the value of a refusal whose field has none to show."""


class Refused(ValueError):
    """An input that cannot be used: one line with the field, its value, the rule and the way out.

    `field` is a dotted path (`release.truncation`) or an option (`--store`), `rule` a clause that follows
    "field=value", such as "must lie in 1..target.classes=530", `way_out` an imperative without its full stop,
    empty where the rule says what to write. A spec's validator gives the path from the spec.
    """

    def __init__(self, field: str, value: object, rule: str, way_out: str = "") -> None:
        super().__init__(field, value, rule, way_out)
        self.field, self.value, self.rule, self.way_out = field, value, rule, way_out

    @property
    def problem(self) -> str:
        """The text without the way out."""
        shown = "" if self.value is NO_VALUE else f"={shortened(str(self.value))}"
        return one_line(f"{shortened(self.field)}{shown} {self.rule}")

    def __str__(self) -> str:
        way_out = f"; {one_line(self.way_out)}" if self.way_out else ""
        return f"{self.problem}{way_out}."

    def under(self, section: str) -> Self:
        """Return the same refusal with the field's path below a section."""
        return type(self)(f"{section}.{self.field}", self.value, self.rule, self.way_out)


def one_line(text: str) -> str:
    """Return a text on one line: control characters and what cannot be encoded as their escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str) -> str:
    """Return a text of at most `MAX_SHOWN` characters, without its middle if it is longer."""
    half = MAX_SHOWN // 2
    return text if len(text) <= MAX_SHOWN else f"{text[: half - 3]}...{text[-half:]}"


class Spec(BaseModel):
    """A frozen record that refuses unknown fields; its canonical JSON enters stage keys.

    Thousands of trials share their parts: what is derived from a part is computed once for each object.
    """

    __slots__ = ("_derived",)  # beside the fields: no part of equality, JSON, copies or pickles

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_is_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        kind = type(value)
        has_truth = kind is bool or (kind in (list, tuple) and any(type(one) is bool for one in value))
        if has_truth and not _takes_bool(cls, str(info.field_name)):
            raise ValueError("true and false are no numbers or names here")
        return value

    def but(self, **changes: object) -> Self:
        """Return the copy with these fields replaced, validated like any other; raise `ValidationError`."""
        parts = {name: id(part) if isinstance(part, Spec) else part for name, part in changes.items()}
        # The changes are kept, so that no other object gets the id of one of them.
        return self.once(("but", repr(parts)), lambda: (changes, self._replaced(changes)))[1]

    def _replaced(self, changes: Mapping[str, object]) -> Self:
        kept = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self).model_validate({**kept, **changes})

    @property
    def plain(self) -> dict[str, Any]:
        """The spec as JSON values; not to be changed."""
        return self.once("plain", lambda: self.model_dump(mode="json"))

    @property
    def text(self) -> str:
        """The canonical JSON."""
        return self.once("text", lambda: canonical(self.plain))

    def once(self, name: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` returned when it was first called for this object under this name."""
        derived: dict[Hashable, T] | None = getattr(self, "_derived", None)
        if derived is None:
            derived = {}
            object.__setattr__(self, "_derived", derived)
        if name not in derived:
            derived[name] = make()
        return derived[name]


@functools.cache
def _takes_bool(spec: type[BaseModel], field: str) -> bool:
    """Return whether a field may be true or false, by itself or below it."""
    return _mentions_bool(spec.model_fields[field].annotation)


def _mentions_bool(annotation: Any) -> bool:
    is_open = annotation in (bool, Any) or (
        isinstance(annotation, type) and issubclass(annotation, BaseModel)
    )
    return is_open or any(map(_mentions_bool, get_args(annotation)))


def added_field(default: Any) -> Any:
    """Declare a field of a spec that is left out of JSON, and so of every key, while it has its default.

    A field that is added to a spec with this keeps the keys of trials that do not use it: their stored stages
    stay in use.
    """
    return Field(default=default, exclude_if=lambda value: value == default)


def first_set(spec: Spec, fields: Sequence[str]) -> str | None:
    """Return the first of some fields of a spec that has another value than its default."""
    of_class = type(spec).model_fields
    return next((name for name in fields if getattr(spec, name) != of_class[name].default), None)


class Model(Spec):
    """A network by name and channel width."""

    name: str
    """Key of `models.CLASSIFIERS` or `models.INVERTERS`."""

    width: Annotated[float, Field(gt=0.0, le=4.0)] = 1.0
    """Factor on every hidden channel count; 1 is the printed network, 0.125 suits a laptop."""

    scaling: Literal["unit", "imagenet", "signed"] = "unit"
    """Of images before a classifier's first layer: [0, 1] as they are, which TL-DMI's released code feeds
    even to ImageNet weights; by ImageNet's mean and deviation; or to [-1, 1], as PPA's networks get them."""


class Recipe(Spec):
    """How a network is trained. Defaults: AMI's released code (Adam with AMSGrad, betas 0.5 and 0.999)."""

    epochs: Annotated[int, Field(gt=0, le=100_000)] = 100
    """Passes over the training images; the epoch that is best on held-out images is kept."""

    batch_size: Annotated[int, Field(gt=0, le=65_536)] = 128
    """Images in one optimiser step, over all workers together."""

    optimizer: Literal["amsgrad", "adam", "sgd"] = "amsgrad"
    """amsgrad: Adam as AMI releases it; adam: betas 0.9 and 0.999; sgd: with momentum (TL-DMI, Table 8)."""

    learning_rate: Annotated[float, Field(gt=0.0, le=10.0)] = 2e-4
    """Step size of the first epoch."""

    milestones: tuple[Count, ...] = ()
    """Epochs after which the step size is divided by 10, ascending."""

    momentum: Share = 0.9
    """Of sgd."""

    weight_decay: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """L2 penalty of the trainable parameters."""

    augmentation: Literal["none", "flip", "crop-jitter-flip"] = "none"
    """Of training images: flip mirrors half of them (TL-DMI at 64x64); crop-jitter-flip also cuts 85 to 100 %
    of the area and changes colours a little (PPA's targets). Only classifiers have images to change."""

    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of the stage's own images held out to choose the best epoch; never the target's test images."""

    @field_validator("milestones")
    @classmethod
    def _milestones_ascend(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError("each must be greater than the one before it")
        return value


def is_same(one: object, other: object) -> bool:
    """Return whether two values mean the same in a study: as text, numbers by value, booleans in any case."""
    return _plain(one) == _plain(other)


def _plain(value: object) -> str | float:
    text = str(value).lower() if str(value).lower() in ("true", "false") else str(value)
    try:
        return float(text)
    except ValueError:
        return text


def num_held_out(num_images: int, fraction: float) -> int:
    """Return how many of a training's images are held out: at least one."""
    return max(1, round(num_images * fraction))


def canonical(value: object) -> str:
    """Return JSON with sorted keys and no spaces; refuses NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def composed(texts: Mapping[str, str]) -> str:
    """Return the canonical JSON of a mapping from the canonical JSON of its values."""
    return "{" + ",".join(f"{_quoted(name)}:{texts[name]}" for name in sorted(texts)) + "}"


@functools.lru_cache(maxsize=1024)
def _quoted(name: str) -> str:
    return canonical(name)


def digest(value: object) -> str:
    """Return the SHA-256 hex digest of the canonical JSON."""
    return digest_of(canonical(value))


def digest_of(text: str) -> str:
    """Return the SHA-256 hex digest of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()

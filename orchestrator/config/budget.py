"""Frozen-layer budget: its four spellings, parsed once (TL-DMI: Ho et al., CVPR 2024, Table 8).

A parsed budget is the string or number of the study file, so that keys and tables write it as the user did.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, PlainSerializer, PlainValidator, TypeAdapter

NAME_OR_PERCENTAGE = r"^[A-Za-z_][A-Za-z0-9_.-]*$|^(100|[1-9][0-9]?)(\.[0-9]+)?%$"
Written = (
    Annotated[str, Field(pattern=NAME_OR_PERCENTAGE)]
    | Annotated[float, Field(gt=0.0, le=1e6, allow_inf_nan=False)]
)
"""What a study file may have: a name, a percentage, or millions of parameters."""


class _Name(str):
    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return handler.generate_schema(Annotated[str, AfterValidator(cls)])


class CutPoint(_Name):
    """Everything up to and including the named cut point is frozen."""


class LayerSet(_Name):
    """The named set of layers trains and the last layers do, the others are frozen (supplement B.2)."""


class Percentage(str):
    """|theta_C| as a share of |theta_T|, written like `40%`."""

    @property
    def share(self) -> float:
        """The share, in (0, 1]."""
        return float(self.removesuffix("%")) / 100


class Millions(float):
    """|theta_C| in millions of parameters."""


NamedBudget = CutPoint | LayerSet
"""A budget that has been resolved: it names what is frozen."""

FULL = CutPoint("full")
"""The cut before the first layer: nothing is frozen."""

LAYER_SETS = tuple(map(LayerSet, ("first", "middle", "last")))
"""Which layers train, the last ones always."""


def named(name: str) -> NamedBudget:
    """Return the budget of a name: a layer set or, without looking at any network, a cut point."""
    return LayerSet(name) if name in LAYER_SETS else CutPoint(name)


_WRITTEN: TypeAdapter[str | float] = TypeAdapter(Written)


def parse(written: Any) -> CutPoint | LayerSet | Percentage | Millions:
    """Return the budget that a string or number of a study file means; raise `ValidationError`."""
    valid = _WRITTEN.validate_python(written)
    if not isinstance(valid, str):
        return Millions(valid)
    return Percentage(valid) if valid.endswith("%") else named(valid)


def _plain(budget: str | float) -> str | float:
    return str(budget) if isinstance(budget, str) else float(budget)


Budget = Annotated[
    CutPoint | LayerSet | Percentage | Millions,
    PlainValidator(parse, json_schema_input_type=Written),
    PlainSerializer(_plain, return_type=str | float),
]
"""What a user asks to freeze: a name, a percentage, or millions of parameters that train."""

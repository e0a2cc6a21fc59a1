"""Parts of the benchmark: what each needs, its share of the time, and its function."""

from collections.abc import Mapping
from dataclasses import dataclass

SCIENCE = (
    *("torch", "torchvision", "numpy", "yaml", "safetensors", "PIL", "urllib3"),
    *("pydantic", "annotated_types", "pydantic_core", "typing_extensions", "typing_inspection"),
    *("sklearn", "cloudpickle", "joblib", "narwhals", "scipy", "threadpoolctl"),
)
"""With what they import themselves, but for torch: a machine may have got its wheels one by one."""

PRODUCT = (
    *(*SCIENCE, "psutil", "pandas", "dateutil", "six", "torchmetrics", "lightning_utilities"),
    *("matplotlib", "contourpy", "cycler", "fontTools", "kiwisolver", "packaging", "pyparsing"),
)
TESTS = (*PRODUCT, "pytest", "iniconfig", "pluggy", "pygments")


@dataclass(frozen=True)
class Part:
    """A part that runs in a process of its own."""

    function: str
    """`module:function` of this package, from a `Context` to records."""

    share: float
    """Of the time that is left when it begins, beside the shares of those that follow."""

    needs: tuple[str, ...] = SCIENCE
    """Modules without which it is skipped."""


PARTS: Mapping[str, Part] = {
    "peak": Part("speed:peak", 3),
    "rows": Part("speed:rows", 8),
    "iterations": Part("speed:iterations", 3),
    "data": Part("data:path", 1),
    "waits": Part("data:waits", 2),
    "replay": Part("replay:replay", 5),
    "inverters": Part("several:inverters", 3),
    "demo": Part("product:demo", 6, PRODUCT),
    "attacks": Part("product:attacks", 7, PRODUCT),
    "tests": Part("product:tests", 3, TESTS),
    "fractions": Part("several:fractions", 4),
}
"""Name -> part, in the order in which they run: what tells most comes first."""

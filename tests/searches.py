"""A study over ranges and lists, for random and Optuna searches."""

from typing import Any

from orchestrator.config.study import Study
from tests import tiny

OFFSETS = {"low": 0.5, "high": 50.0, "log": True}
AXES: dict[str, Any] = {
    "release.truncation": {"low": 1, "high": 5, "integer": True},
    "target.classes": [2, 3, 4],
    "attack.offset": OFFSETS,
}


def searched(algorithm: str, axes: Any = AXES, **search: Any) -> Study:
    """Return a study of some search over the tiny base."""
    return tiny.study(axes, search={"algorithm": algorithm, **search})

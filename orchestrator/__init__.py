"""Model-inversion sweeps: train targets, attack them, defend them, and measure what leaks.

In Python: `import orchestrator as inv`, then `inv.Study.load("demo", scale="smoke").run()`; docs/python.md.
Nothing is imported before it is used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

PLACES = {
    "Study": "orchestrator.api.study",
    "Results": "orchestrator.api.results",
    "evaluate": "orchestrator.api.evaluation",
    "stage_images": "orchestrator.api.arrays",
    "stage_module": "orchestrator.api.modules",
    "Refused": "orchestrator.config.base",
    "StudyError": "orchestrator.config.study",
}
"""Name of the library's door -> the module that has it."""
__all__ = ["PLACES", *PLACES]


def __getattr__(name: str) -> Any:
    """Import what is asked for first (PEP 562)."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(PLACES[name]), name)


def __dir__() -> list[str]:
    """Return the names of the door too."""
    return sorted({*globals(), *PLACES})

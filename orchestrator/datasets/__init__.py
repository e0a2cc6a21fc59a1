"""Data sets: loading by name, their splits, and the images each stage may use.

`selection` and `images` need torch and are imported from their own modules.
"""

from orchestrator.datasets.catalog import (
    Dataset,
    Description,
    Footprint,
    Labels,
    Location,
    describe,
    footprint,
    load,
    load_labels,
    verify,
)
from orchestrator.datasets.splits import PARTS

__all__ = [
    "PARTS",
    "Dataset",
    "Description",
    "Footprint",
    "Labels",
    "Location",
    "describe",
    "footprint",
    "load",
    "load_labels",
    "verify",
]

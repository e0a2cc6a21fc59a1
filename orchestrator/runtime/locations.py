"""Locations of a sweep: where its artifacts, data sets and tracking are. Nothing of it enters a key."""

from dataclasses import dataclass, field, replace
from typing import Self

from orchestrator.datasets import Location
from orchestrator.datasets.catalog import CACHE_GIB
from orchestrator.runtime.open_store import open_artifacts, open_location
from orchestrator.store.artifacts import Artifacts


@dataclass(frozen=True)
class Locations:
    """Addresses without clients: they travel to workers, which open clients of their own."""

    store: str
    """Artifacts: a folder or s3://bucket/prefix."""

    data: str | None = None
    """Staged data sets: a folder or s3://bucket/prefix; None has the built-in ones only."""

    cache: str | None = None
    """Folder in which a node keeps data sets read from S3."""

    cache_gib: int = CACHE_GIB
    """Limit of that folder in GiB."""

    tracking: str | None = field(default=None, repr=False)
    """MLflow's URI, which may carry a password; None ships nothing now."""

    def open_store(self) -> Artifacts:
        """Return the artifact store; raise `ValueError` if its URI names none."""
        return open_artifacts(self.store)

    def open_data(self) -> Location:
        """Return where staged data sets are; raise `ValueError` if the URI names no store."""
        return open_location(self.data, self.cache, self.cache_gib)

    def for_workers(self) -> Self:
        """Return the locations that workers use: only the sweep's driver tracks."""
        return replace(self, tracking=None)

"""Options of everything that opens a study: which one, what is changed in it, and where things are."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.config.installation import called
from orchestrator.config.plain import check_path
from orchestrator.datasets.catalog import CACHE_GIB
from orchestrator.runtime.http import redact
from orchestrator.runtime.locations import Locations
from orchestrator.runtime.open_store import NODE_CACHE, check_folder, open_blobs
from orchestrator.store.blobs import Blobs

RUNS = Path("runs")
STORE, DATA, TRACKING = "INVERSION_STORE", "INVERSION_DATA", "MLFLOW_TRACKING_URI"
"""Environment variables that say where things are if no option does, for commands and in notebooks."""
MAX_MINUTES = 100_000
MAX_CACHE_GIB = 1_000_000


@dataclass(frozen=True)
class Options:
    """The values of a command's options."""

    study: str
    overrides: Sequence[str]
    scale: str | None
    out: Path
    store: str | None
    data: str | None
    tracking_uri: str | None
    ship_later: bool
    cache: Path | None = None
    wait_for_nodes: float = 0.0  # minutes
    cache_gib: int = CACHE_GIB

    def locations(self) -> Locations:
        """Return where artifacts, data sets and tracking are, defaults filled in.

        Raise `Refused` for a path that none can be, and for a time or a size that none is.
        """
        check_path("out", self.out)
        check_path("cache", self.cache or NODE_CACHE)
        if not 0.0 <= self.wait_for_nodes <= MAX_MINUTES:
            rule = f"must lie in 0..{MAX_MINUTES}, in minutes"
            raise Refused("--wait-for-nodes", self.wait_for_nodes, rule, "use 0 to wait for none")
        if not 1 <= self.cache_gib <= MAX_CACHE_GIB:
            rule = f"must lie in 1..{MAX_CACHE_GIB}, in GiB"
            raise Refused("--cache-gib", self.cache_gib, rule, f"leave it out for {CACHE_GIB}")
        return Locations(
            store=_absolute(self.store or f"{self.out / 'store'}", "store"),
            data=self.data and _absolute(self.data, "data"),
            cache=str(self.cache or NODE_CACHE) if self.data and "://" in self.data else None,
            cache_gib=self.cache_gib,
            tracking=None if self.ship_later else self.tracking_uri or f"sqlite:///{self.out / 'mlflow.db'}",
        )

    def command(self) -> str:
        """Return the sweep's command over the same study and locations, to copy."""
        words = [*called("sweep"), self.study]
        named = {"--scale": self.scale, "--store": self.store, "--data": self.data}
        named["--out"] = str(self.out) if self.out != RUNS else None
        named["--tracking-uri"] = self.tracking_uri and redact(self.tracking_uri)
        for flag, value in named.items():
            words += [flag, value] if value else []
        for override in self.overrides:
            words += ["--set", override]
        return shlex.join([*words, "--ship-later"] if self.ship_later else words)

    def again(self) -> str:
        """Return the sweep's command without this machine's places, for a report that others read."""
        bare = replace(self, out=RUNS, store=None, data=None, tracking_uri=None, ship_later=False)
        return bare.command()


def open_data(data: str | Path | None) -> Blobs:
    """Return the data location of a call in a notebook: `data`, without it that of INVERSION_DATA; untouched.

    Raise `Refused` if neither names one.
    """
    location = str(data) if data else os.environ.get(DATA)
    if not location:
        raise Refused("data", NO_VALUE, "names no data location", f"give a folder, or set {DATA} to one")
    return open_blobs(location)


def _absolute(uri: str, field: str) -> str:
    """Return a folder's whole path: workers have other working directories. Raise `Refused` if it is none."""
    return uri if "://" in uri else str(Path(check_folder(uri, field)).absolute())

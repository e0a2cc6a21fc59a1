"""Options that every command over a study has."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.config.base import Refused
from orchestrator.config.plain import check_path
from orchestrator.datasets.catalog import CACHE_GIB
from orchestrator.runtime.http import redact
from orchestrator.runtime.locations import Locations
from orchestrator.runtime.open_store import NODE_CACHE, check_folder

RUNS = Path("runs")
MAX_MINUTES = 100_000
MAX_CACHE_GIB = 1_000_000

StudyName = Annotated[
    str, typer.Argument(help="Study file, or the name of one in jobs/studies.", metavar="STUDY.yaml")
]
Overrides = Annotated[
    list[str],
    typer.Option("--set", metavar="PATH=VALUE", help="Override a field, e.g. target.recipe.epochs=3."),
]
Scale = Annotated[str | None, typer.Option(help="Apply one of the study's scales, e.g. smoke.")]
Out = Annotated[Path, typer.Option(help="Write reports, and the default store, to this folder.")]
Store = Annotated[
    str | None,
    typer.Option(
        envvar="INVERSION_STORE",
        help="Keep artifacts in this folder or s3://bucket/prefix; default: --out/store.",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        envvar="INVERSION_DATA",
        help="Read staged data sets from this folder or s3://bucket/prefix; default: built-in sets only.",
    ),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(envvar="MLFLOW_TRACKING_URI", help="Track in this MLflow; default: sqlite in --out."),
]
ShipLater = Annotated[
    bool,
    typer.Option("--ship-later", help="Skip MLflow for now; rerun without this flag to upload everything."),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        envvar="INVERSION_CACHE",
        help="Cache data sets from S3 in this folder of each node; default: ~/.cache/inversion-orchestrator.",
    ),
]
CacheGib = Annotated[
    int,
    typer.Option(
        envvar="INVERSION_CACHE_GIB",
        metavar="GIB",
        help="Let each node's cache grow to this size; image sets that fit are mapped, larger ones held.",
    ),
]
WaitForNodes = Annotated[
    float,
    typer.Option(
        envvar="INVERSION_WAIT_FOR_NODES",
        metavar="MINUTES",
        help="Let stages wait for nodes that an autoscaler adds; 0 refuses a study that does not fit now.",
    ),
]


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
        words = ["python", "-m", "jobs.sweep", self.study]
        named = {"--scale": self.scale, "--store": self.store, "--data": self.data}
        named["--out"] = str(self.out) if self.out != RUNS else None
        named["--tracking-uri"] = self.tracking_uri and redact(self.tracking_uri)
        for flag, value in named.items():
            words += [flag, value] if value else []
        for override in self.overrides:
            words += ["--set", override]
        return shlex.join([*words, "--ship-later"] if self.ship_later else words)


def _absolute(uri: str, field: str) -> str:
    """Return a folder's whole path: workers have other working directories. Raise `Refused` if it is none."""
    return uri if "://" in uri else str(Path(check_folder(uri, field)).absolute())

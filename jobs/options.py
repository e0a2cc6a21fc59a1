"""Options that every command over a study has."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.api.options import DATA, STORE, TRACKING

StudyName = Annotated[
    str,
    typer.Argument(
        help="Study file, or the name of a shipped one, as `jobs.sweep --list` prints them.",
        metavar="STUDY.yaml",
    ),
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
        envvar=STORE,
        help="Keep artifacts in this folder or s3://bucket/prefix; default: --out/store.",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        envvar=DATA,
        help="Read staged data sets from this folder or s3://bucket/prefix; default: built-in sets only.",
    ),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(envvar=TRACKING, help="Track in this MLflow; default: sqlite in --out."),
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

"""Options of commands over a study: where things are, and the command to copy."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.api.options import Options
from orchestrator.config.base import Refused
from orchestrator.runtime.open_store import NODE_CACHE

GIVEN: dict[str, Any] = {
    "study": "demo",
    "overrides": ["target.seed=3"],
    "scale": "smoke",
    "out": Path("runs"),
    "store": None,
    "data": None,
    "tracking_uri": None,
    "ship_later": False,
}


def options(**changes: Any) -> Options:
    """Return the options with some changed."""
    return Options(**{**GIVEN, **changes})


def test_defaults_lie_in_the_output_folder() -> None:
    locations = options().locations()
    assert locations.store == str(Path("runs/store").absolute())  # workers have other working directories
    assert (locations.data, locations.cache) == (None, None)
    assert locations.tracking == "sqlite:///runs/mlflow.db"


def test_only_data_from_afar_is_cached_and_nothing_is_tracked_later() -> None:
    assert options(data="staged").locations().cache is None
    locations = options(data="s3://bucket/data", ship_later=True).locations()
    assert (locations.data, locations.cache) == ("s3://bucket/data", str(NODE_CACHE))
    assert locations.tracking is None
    assert options(data="s3://bucket/data", cache=Path("/fast")).locations().cache == "/fast"


@pytest.mark.parametrize("size", [0, -3, 1_000_001])
def test_a_cache_has_a_possible_size(size: int) -> None:
    assert options().locations().cache_gib == 32
    assert options(cache_gib=600).locations().cache_gib == 600
    with pytest.raises(Refused, match=rf"^--cache-gib={size} must lie in 1..1000000, in GiB; leave it out"):
        options(cache_gib=size).locations()


def test_the_command_repeats_what_was_given_without_passwords() -> None:
    assert options().command() == "python -m jobs.sweep demo --scale smoke --set target.seed=3"
    given = options(out=Path("my runs"), tracking_uri="http://me:secret@host", ship_later=True, scale=None)
    assert given.command() == (
        "python -m jobs.sweep demo --out 'my runs' --tracking-uri 'http://***@host' --set target.seed=3 "
        "--ship-later"
    )

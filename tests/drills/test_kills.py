"""Spans modules: 100 kills spread over fresh folders and running sweeps; see `tests.drills.kills`."""

from pathlib import Path

import pytest

from tests.drills.kills import main


@pytest.mark.slow
@pytest.mark.mlflow
@pytest.mark.timeout(3600)
def test_a_hundred_kills_lose_nothing(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if "slow" not in request.config.option.markexpr:
        pytest.skip("many minutes; run with -m slow")
    drill = main(0, 100, tmp_path)
    assert drill.killed.total() == 100
    assert drill.num_checked >= drill.num_folders

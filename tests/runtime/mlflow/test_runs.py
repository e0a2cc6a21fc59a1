"""Sweeps read back from MLflow, in a file and behind a server: the same tables as from the store."""

import json
import shutil
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, RunData, RunInfo
from typer.testing import CliRunner

import orchestrator as inv
from jobs.runs import app
from orchestrator.config.base import Refused
from orchestrator.runtime.mlflow.runs import TrackedSweep, tracked_sweeps
from tests import tiny

pytestmark = pytest.mark.mlflow

RUN = Run(RunInfo("r", "0", "me", "RUNNING", 0, None, "active"), RunData())
METRIC = ("--metric", "inversion/skill_test")


@pytest.fixture(scope="module")
def places(
    tmp_path_factory: pytest.TempPathFactory, mlflow_server: str, mlflow_database: Path
) -> dict[str, tuple[str, str]]:
    """Return the options for one sweep in a store, in an MLflow file and behind an MLflow server."""
    folder = tmp_path_factory.mktemp("tracked")
    axes = {"release.truncation": [1, 2], "seed": [0, 1]}
    file = tiny.write(folder / "tiny.yaml", axes)
    database = folder / "out" / "mlflow.db"
    database.parent.mkdir()
    shutil.copy(mlflow_database, database)
    for uri in (f"sqlite:///{database}", mlflow_server):
        inv.Study.load(file).run(store=folder / "store", out=folder / "out", tracking_uri=uri)
    return {
        "store": ("--store", str(folder / "store")),
        "file": ("--mlflow", f"sqlite:///{database}"),
        "server": ("--mlflow", mlflow_server),
    }


def document(*words: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*words, "--format", "json"])
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("where", ["file", "server"])
@pytest.mark.parametrize(
    "words",
    [
        ("show", "tiny"),
        ("show", "tiny", *METRIC),
        ("best", "--study", "tiny"),
        ("compare", "tiny", "tiny", *METRIC),
    ],
)
def test_tables_are_those_of_the_store(
    words: tuple[str, ...], where: str, places: Mapping[str, tuple[str, str]]
) -> None:
    ours, theirs = document(*words, *places["store"]), document(*words, *places[where])
    assert ours["rows"] or words[0] == "best"
    assert theirs["rows"] == ours["rows"]
    for form in ("csv", "table"):
        outputs = [
            CliRunner().invoke(app, [*words, "--format", form, *places[one]]).stdout.splitlines()
            for one in ("store", where)
        ]
        kept = [
            [line for line in lines if "report: " not in line and "forecast: " not in line]
            for lines in outputs
        ]
        assert kept[0][1:] == kept[1][1:]


@pytest.mark.parametrize("where", ["file", "server"])
def test_a_listing_and_differences_are_those_of_the_store(
    where: str, places: Mapping[str, tuple[str, str]]
) -> None:
    listed = [document("ls", *places[one])["rows"] for one in ("store", where)]
    plain = [
        [{name: row[name] for name in ("sweep", "study", "trials", "status")} for row in rows]
        for rows in listed
    ]
    assert plain[0] == [row for row in plain[1] if row["study"] == "tiny"]
    changes = [document("diff", "tiny/0", "tiny/2", *places[one]) for one in ("store", where)]
    settings = [[row for row in one["rows"] if row["what"] == "setting"] for one in changes]
    assert (
        settings[0] == settings[1] == [{"what": "setting", "name": "release.truncation", "A": "1", "B": "2"}]
    )
    stages = {
        row["name"]: (row["A"][:2], row["B"][:2]) for row in changes[1]["rows"] if row["what"] == "stages"
    }
    assert stages["inversion"] == ("1:", "1:")
    assert "stages: all that a trial of MLflow has" in " ".join(changes[1]["notes"])


def test_a_sweep_of_a_store_is_compared_with_one_of_mlflow(places: Mapping[str, tuple[str, str]]) -> None:
    rows = document("ls", *places["store"], *places["file"])["rows"]
    assert len({row["store"] for row in rows}) == len(rows) == 2


def test_mlflow_is_read_where_only_a_tracking_uri_is_known(
    places: Mapping[str, tuple[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INVERSION_STORE", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", places["file"][1])
    assert [row["study"] for row in document("ls")["rows"]] == ["tiny"]
    assert [row["study"] for row in document("ls", *places["store"])["rows"]] == ["tiny"]


class Ending(BaseHTTPRequestHandler):
    """A server that answers once, and then ends every connection without an answer."""

    answers = iter([b"{}"])

    def do_GET(self) -> None:
        """Answer the check of the tracking URI alone."""
        for answer in self.answers:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


def test_a_server_that_ends_while_it_is_read_costs_no_password() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Ending) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://me:secret@127.0.0.1:{server.server_port}"
        with pytest.raises(
            Refused, match=r"--mlflow=http://\*\*\*@.* cannot be read: .*http://\*\*\*@"
        ) as refused:
            tracked_sweeps(uri)
        assert "secret" not in str(refused.value)
        sweep = TrackedSweep(MlflowClient(uri), RUN, "http://***@127.0.0.1", None)
        for read in (lambda: sweep.file("report/summary.csv"), lambda: sweep.trials):
            with pytest.raises(Refused, match="cannot be read") as refused:
                read()
            assert "secret" not in str(refused.value)
        server.shutdown()


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("sqlite:///{folder}/none.db", "names no file; correct it, or read a store with --store"),
        ("http://127.0.0.1:9", "gets no answer from MLflow"),
        ("runs/mlflow.db", "must start with http://, https:// or sqlite:///"),
    ],
)
def test_what_is_no_mlflow_is_refused_and_nothing_is_made(uri: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=text):
        tracked_sweeps(uri.format(folder=tmp_path))
    assert list(tmp_path.iterdir()) == []

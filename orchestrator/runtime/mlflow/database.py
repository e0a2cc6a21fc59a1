"""MLflow's database in a SQLite file: whole or absent, with its files beside it wherever the folder is.

MLflow makes its 65 tables in place, one by one; a process that dies meanwhile leaves a file that no MLflow
opens. Here a database is made aside and linked into place. Pictures lie beside it in `mlartifacts/` and are
named relative to that. Importing this module imports no MLflow.
"""

import fcntl
import importlib.util
import logging
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from orchestrator.config.base import Refused

PROXIED = "mlflow-artifacts:/"  # where a server keeps files; without one `folder_of` is that place
QUIET_SECONDS = 10.0  # a half-made database that changed later than that may have a living maker
_REVISION = re.compile(r'^(down_revision|revision)(?:: [^=]+)? = ["\'](\w+)["\']', re.MULTILINE)
_JOURNALS = ("", "-journal", "-wal", "-shm")


def sqlite_path(uri: str) -> Path:
    """Return the file of `sqlite:///relative.db` or `sqlite:////absolute.db`."""
    return Path(unquote(uri.split("?", 1)[0].removeprefix("sqlite:///")))


def artifacts_folder(database: Path) -> Path:
    """Return the folder that holds the files of a database's runs: it moves with the database."""
    return database.absolute().parent / "mlartifacts"


def check_database(path: Path) -> None:
    """Raise `Refused` if the file is no database, or holds runs in another schema than this MLflow's.

    An absent file is right, and so is one without runs: `prepare` makes it.
    """
    if path.exists():
        _is_usable(path)


def prepare(path: Path) -> None:
    """Make the database unless it is there; set one aside that was never finished and has no runs.

    Any number of processes may do so at once. Raise `Refused` as `check_database` does.
    """
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    while not _is_prepared(path):
        time.sleep(0.5)


def _is_prepared(path: Path) -> bool:
    """Return whether the database is there; False while another process seems to make it in place."""
    with _locked(path):
        if path.exists() and not _is_usable(path):
            if time.time() - path.stat().st_mtime < QUIET_SECONDS and path.stat().st_size:
                return False
            _set_aside(path)
        if path.exists():
            _name_files_relatively(path)
        else:
            _make(path)
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time prepare a database; the system unlocks it if that process dies."""
    with path.with_name(f"{path.name}.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_usable(path: Path) -> bool:
    """Return whether the schema is this MLflow's; False if it is not and there are no runs to lose."""
    try:
        with closing(sqlite3.connect(path, timeout=30)) as database:
            version, num_runs = _number(database, "alembic_version", "version_num"), _number(database, "runs")
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):  # locked, or its disk is away: no judgement
            raise OSError(f"{path}: {error}") from error
        rule, way_out = f"is no SQLite database ({error})", "move it away or name another with --tracking-uri"
        raise Refused("tracking_uri", path, rule, way_out) from error
    if version in heads() or not heads():
        return True
    if num_runs:
        rule = f"holds {num_runs} runs of another MLflow (schema {version or 'unknown'})"
        way_out = f"copy the file, then run `mlflow db upgrade sqlite:///{path}`, or install that MLflow"
        raise Refused("tracking_uri", path, rule, way_out)
    return False


def _number(database: sqlite3.Connection, table: str, what: str = "COUNT(*)") -> str | int | None:
    """Return the first value of a query on a table; None where there is no such table or row."""
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [table]).fetchone():
        return None
    row = database.execute(f"SELECT {what} FROM {table}").fetchone()
    return row[0] if row else None


def heads() -> set[str]:
    """Return the newest revisions of the installed MLflow's schema, read from its migrations."""
    spec = importlib.util.find_spec("mlflow")
    if spec is None or spec.origin is None:
        return set()
    folder = Path(spec.origin).parent / "store" / "db_migrations" / "versions"
    found = [pair for file in folder.glob("*.py") for pair in _REVISION.findall(file.read_text())]
    return {name for kind, name in found if kind == "revision"} - {
        name for kind, name in found if kind == "down_revision"
    }


def _set_aside(path: Path) -> None:
    """Rename a half-made database, its journals too: they would be played into the next one."""
    stamp = time.time_ns() // 1_000_000
    for suffix in _JOURNALS:
        journal = path.with_name(path.name + suffix)
        if journal.exists():
            journal.rename(path.with_name(f"{path.name}.half-made-{stamp}{suffix}"))


def _make(path: Path) -> None:
    """Make the database beside its place, then link it there; what a killed process began is removed."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    part = path.with_name(f"{path.name}.part")
    for suffix in _JOURNALS:
        part.with_name(part.name + suffix).unlink(missing_ok=True)
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = f"sqlite:///{quote(str(part))}"
    try:
        SqlAlchemyStore(uri, PROXIED)
    except Exception as error:
        if isinstance(error.__cause__, sqlite3.OperationalError):  # the disk is full: a later try may do
            raise OSError(f"{part}: {error.__cause__}") from error
        raise
    finally:
        if engine := SqlAlchemyStore._engine_map.pop(uri, None):  # it keeps the file open
            engine.dispose()
    with part.open("rb") as file:
        os.fsync(file.fileno())
    try:
        os.link(part, path)
    except FileExistsError:  # made in place by another program, just now
        pass
    finally:
        part.unlink()
    _name_files_relatively(path)


def _name_files_relatively(path: Path) -> None:
    """Give experiments whose files lie in the folder beside the database a place relative to it.

    Their absolute paths were those of the folder where the database was made, perhaps another one by now.
    """
    folder = artifacts_folder(path)
    with closing(sqlite3.connect(path, timeout=30)) as database, database:
        rows = database.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall()
        for experiment, location in rows:
            old = Path(unquote(urlsplit(location or "").path))
            if not (location or "").startswith(("file:", "/")) or old.parent.name != folder.name:
                continue
            if (folder / old.name).is_dir():
                _rename(database, experiment, location, f"{PROXIED}{old.name}")


def _rename(database: sqlite3.Connection, experiment: int, old: str, new: str) -> None:
    database.execute(
        "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", [new, experiment]
    )
    database.execute(
        "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
        "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
        [new, len(old) + 1, experiment, len(old), old],
    )


def folder_of(database: Path, artifact_uri: str) -> Path | None:
    """Return the folder of a run's files beside its database; None if they are elsewhere."""
    if not artifact_uri.startswith(PROXIED):
        return None
    return artifacts_folder(database) / artifact_uri.removeprefix(PROXIED)


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files below a folder, each whole or not at all."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f"{path.name}.{os.getpid()}.part")
        aside.write_bytes(data)
        aside.replace(path)

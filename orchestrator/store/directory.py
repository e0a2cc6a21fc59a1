"""Byte store in a directory, local or on a shared file system: one file per object.

A file is written aside in the directory it belongs to, flushed, and then renamed (overwrite) or hard-linked
(create once), so that a reader or a crash at any moment sees a whole object or none.

Images of people and their reconstructions must not travel: every folder under the root gets ignore files, so
that `git add .` and `ray job submit --working-dir .` leave out a root of any name in the working directory.
"""

import os
import re
import secrets
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from orchestrator.config.base import Refused
from orchestrator.store.blobs import Entry, Unfinished, checked_name, checked_prefix


def _host() -> str:
    """Return 8 hex digits of the host's name, its start and this process' namespace of process ids."""
    parts = [socket.gethostname()]
    with suppress(OSError):  # not on Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return f"{zlib.crc32(' '.join(parts).encode()):08x}"


_ASIDE = re.compile(r"\.aside-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{16}")
HOST = _host()
"""This host since it was started, as its processes see each other: in names of files and in leases."""
_FOREIGN_SECONDS = 24 * 3600.0  # whether a process of another host lives is unknown; no write takes a day
_SWEEP_SECONDS = 3600.0
IGNORE_FILES = (".gitignore", ".rayignore")  # Ray heeds both, unless RAY_RUNTIME_ENV_IGNORE_GITIGNORE=1


class DirectoryBlobs:
    """Implements `Blobs` and `Maintenance` on a directory, which the first write creates."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.uri = self.path.as_uri()

    def file(self, name: str) -> Path:
        """Return where the object is or would be; raise `Refused` if `name` is no name of an object."""
        return self.path / checked_name(name)

    def get(self, name: str) -> bytes | None:
        """Return the object, or None if there is none."""
        try:
            return self.file(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def put(self, name: str, data: bytes, *, overwrite: bool = True) -> bool:
        """Store durably and atomically; without `overwrite` return False if the name is taken."""
        final = self.file(name)
        self._make_folder(name)
        if not _create(final, data, overwrite=overwrite):
            return False
        _flush(final.parent)
        return True

    def names(self, prefix: str) -> list[str]:
        """Return the sorted names that start with `prefix`."""
        start = self.path / checked_prefix(prefix).rpartition("/")[0]
        found = (file.relative_to(self.path).as_posix() for file in _files(start))
        return sorted(name for name in found if name.startswith(prefix))

    def entries(self, prefix: str) -> list[Entry]:
        """Return what `names` returns, with sizes and times; what vanishes meanwhile is left out."""
        found = []
        for name in self.names(prefix):
            with suppress(FileNotFoundError):
                stat = (self.path / name).stat()
                found.append(Entry(name, stat.st_size, stat.st_mtime_ns // 1_000_000))
        return found

    def remove(self, name: str) -> None:
        """Delete the object; no error if there is none."""
        file = self.file(name)
        try:
            file.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return
        _flush(file.parent)

    def check(self, option: str = "--store", *, writes: bool = True) -> None:
        """Raise `Refused` if the directory is missing or, with `writes`, cannot create files once.

        With `writes`, also remove what writers left that died more than an hour ago.
        """
        field = option.lstrip("-")
        if not writes:
            if not self.path.is_dir():
                raise Refused(field, self.path, "is no directory", f"name another with {option}")
            return
        probe = f"probe-{HOST}-{os.getpid()}-{secrets.token_hex(8)}"
        try:
            created = [self.put(probe, b"probe", overwrite=False) for _ in range(2)]
            self.remove(probe)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise Refused(
                field, self.path, f"cannot be written ({reason})", f"name a writable directory with {option}"
            ) from error
        if created != [True, False]:
            rule = "is on a file system that does not create files once"
            raise Refused(field, self.path, rule, f"name another with {option}")
        self.sweep()

    def unfinished(self) -> list[Unfinished]:
        """Return the files of writers that died before their rename; those of other hosts after a day."""
        found = []
        for file in _files(self.path, aside=True):
            with suppress(FileNotFoundError):  # its writer has just finished
                stat = file.stat()
                if _is_dead(file.name, time.time() - stat.st_mtime):
                    name = file.relative_to(self.path).as_posix()
                    found.append(Unfinished("leftover", name, stat.st_size, stat.st_mtime_ns // 1_000_000))
        return sorted(found, key=lambda write: write.name)

    def discard(self, write: Unfinished) -> None:
        """Remove a file of `unfinished`; no error if it is gone."""
        assert _ASIDE.fullmatch(write.name.rpartition("/")[2]), write.name
        (self.path / write.name).unlink(missing_ok=True)

    def sweep(self, older_than_seconds: float = _SWEEP_SECONDS) -> int:
        """Discard the unfinished writes that are older; return how many."""
        limit_ms = (time.time() - older_than_seconds) * 1000
        old = [write for write in self.unfinished() if write.modified_ms < limit_ms]
        for write in old:
            self.discard(write)
        return len(old)

    def _make_folder(self, name: str) -> None:
        """Create the folder of an object; the first one under the root gets its ignore files at once."""
        first, slash, _ = name.partition("/")
        if slash:
            withhold(self.path / first)
        _make_durably(self.file(name).parent)


def withhold(folder: Path) -> None:
    """Create a folder whose content stays out of git and of Ray's packages; raise `OSError`."""
    if all((folder / name).exists() for name in IGNORE_FILES):
        return
    _make_durably(folder)
    for name in IGNORE_FILES:
        _create(folder / name, b"*\n", overwrite=False)


def _create(final: Path, data: bytes, *, overwrite: bool) -> bool:
    """Write a file aside and move it into its place; without `overwrite` return False if there is one."""
    aside = final.parent / f".aside-{HOST}-{os.getpid()}-{secrets.token_hex(8)}"
    try:
        _write(aside, data)
        if overwrite:
            os.replace(aside, final)
        else:
            os.link(aside, final)
    except FileExistsError:
        return False
    finally:
        aside.unlink(missing_ok=True)
    return True


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_durably(directory: Path) -> None:
    if directory.is_dir():
        return
    _make_durably(directory.parent)
    directory.mkdir(exist_ok=True)
    _flush(directory.parent)


def _files(start: Path, *, aside: bool = False) -> Iterator[Path]:
    """Yield the objects below `start`, or the files that writers put aside there."""
    for folder, _, files in os.walk(start):
        for file in files:
            if file not in IGNORE_FILES and aside == bool(_ASIDE.fullmatch(file)):
                yield Path(folder, file)


def _is_dead(name: str, age_seconds: float) -> bool:
    """Return whether the writer of a file put aside has ended, as far as this host can see."""
    match = _ASIDE.fullmatch(name)
    assert match is not None
    if match["host"] != HOST:
        return age_seconds > _FOREIGN_SECONDS
    return not is_alive(int(match["pid"]))


def is_alive(pid: int) -> bool:
    """Return whether a process of this host is running."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's process
    return True

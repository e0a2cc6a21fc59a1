"""Image folders, one directory per identity, and .zip files of such folders, read member by member.

Nothing is unpacked to disk, so no name inside an archive becomes a path. Hidden files and files outside the
identities' directories are counted as dropped.
"""

import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from orchestrator.datasets.sources.base import BadImage, Source, fingerprint_of
from orchestrator.datasets.sources.decoding import MAX_BYTES, decode

MAX_MEMBERS = 2_000_000
HIDDEN = ("__MACOSX", "Thumbs.db", "desktop.ini")

Read = Callable[[str], bytes]


def image_folder(path: Path) -> Source:
    """Read DIR/identity/image files."""
    files = {file.relative_to(path).as_posix(): file for file in _walk(path)}

    return _source(path, path.resolve().name, sorted(files), lambda name: read_capped(files[name]))


def read_capped(path: Path) -> bytes:
    """Read a file, of one that is too large just enough to see that."""
    with path.open("rb") as handle:
        return handle.read(MAX_BYTES + 1)


def image_zip(path: Path) -> Source:
    """Read identity/image members, with or without one folder around them all."""
    members, read = open_zip(path)
    root = _root(members)
    names = {name.removeprefix(root): name for name in members}
    return _source(path, path.stem, sorted(names), lambda name: read(names[name]))


def open_zip(path: Path) -> tuple[list[str], Read]:
    """Return the names of an archive's files, all checked, and how to read one."""
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no readable zip file ({error}); pack it again.") from None
    members = {info.filename: info for info in archive.infolist() if not info.is_dir()}
    if len(members) > MAX_MEMBERS:
        raise ValueError(f"{path} has {len(members)} members, more than {MAX_MEMBERS}; split it.")
    for info in members.values():
        _check_member(info, path)

    def read(name: str) -> bytes:
        with archive.open(members[name]) as handle:
            return handle.read(MAX_BYTES + 1)

    return list(members), read


def checked(read: Read, path: Path) -> Read:
    """Return the same reader with everything that can go wrong told as a `BadImage`."""

    def read_checked(name: str) -> bytes:
        try:
            return read(name)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise BadImage("unreadable", f"{path}: {name} cannot be read ({error}); replace it.") from None

    return read_checked


def contents(names: Iterable[str], read: Read) -> Iterator[tuple[str, bytes]]:
    """Yield names and bytes for a fingerprint, no bytes where they cannot be read."""
    for name in names:
        try:
            yield name, read(name)
        except BadImage:  # reported when its turn to be decoded comes
            yield name, b""


def leaves(name: str) -> bool:
    """Return whether a name from a list or an archive would lead out of its folder, or around in it."""
    return "\\" in name or bool({"", ".", ".."} & set(name.split("/")))


def _walk(path: Path) -> Iterator[Path]:
    """Yield the files of the folder and of its directories; links are followed, deeper levels refused."""
    for entry in sorted(path.iterdir()):
        if entry.is_dir() and not _is_hidden(entry.name):
            yield from _files_of(entry)
        elif entry.is_file():
            yield entry


def _files_of(identity: Path) -> Iterator[Path]:
    files = sorted(identity.iterdir())
    if not any(not _is_hidden(file.name) for file in files):
        raise ValueError(f"{identity} has no images; remove that folder.")
    for file in files:
        if file.is_dir():
            raise _too_deep(str(file))
        yield file


def _source(path: Path, name: str, files: list[str], read: Read) -> Source:
    images = []
    ignored = []
    for file in files:
        parts = PurePosixPath(file).parts
        if len(parts) == 1 or any(_is_hidden(part) for part in parts):
            ignored.append(file)
        elif len(parts) > 2:
            raise _too_deep(f"{path}: {file}")
        else:
            images.append(file)
    classes = sorted({file.split("/")[0] for file in images})
    if not images:
        raise ValueError(f"{path} has no image folders; it needs one directory per identity.")
    number = {one: label for label, one in enumerate(classes)}

    read_checked = checked(read, path)
    return Source(
        kind="image-folder",
        name=name.lower(),
        class_names=tuple(classes),
        labels=np.array([number[file.split("/")[0]] for file in images], dtype=np.int64),
        read=lambda index: decode(read_checked(images[index]), f"{path}: {images[index]}"),
        label_of=lambda index: images[index],
        fingerprint=fingerprint_of(contents(files, read_checked)),
        left_out={"outside a class folder": tuple(ignored)},
    )


def _check_member(info: zipfile.ZipInfo, path: Path) -> None:
    is_link = stat.S_ISLNK(info.external_attr >> 16)
    climbs = leaves(info.filename)
    if is_link or climbs or info.flag_bits & 1:
        what = (
            "a link"
            if is_link
            else "a path that leaves the archive or goes around in it"
            if climbs
            else "encrypted"
        )
        raise ValueError(f"{path}: member {info.filename!a} is {what}; pack plain folders of images.")


def _root(members: Iterable[str]) -> str:
    """Return `folder/` if one folder lies around all identities, or an empty string."""
    nested = [parts for name in members if len(parts := name.split("/")) > 1 and not _is_hidden(parts[0])]
    roots = {parts[0] for parts in nested}
    return f"{roots.pop()}/" if len(roots) == 1 and all(len(parts) > 2 for parts in nested) else ""


def _is_hidden(part: str) -> bool:
    return part.startswith(".") or part in HIDDEN


def _too_deep(name: str) -> ValueError:
    return ValueError(
        f"{name} lies too deep, images must be in one directory per identity; give that folder."
    )

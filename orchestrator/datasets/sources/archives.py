"""Archives: names and bytes of a .zip's members; nothing is unpacked to disk, so no name becomes a path."""

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets.sources.base import BadImage
from orchestrator.datasets.sources.decoding import MAX_BYTES

MAX_MEMBERS = 2_000_000
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)

Read = Callable[[str], bytes]


def opened(path: Path, rule: str, way_out: str) -> zipfile.ZipFile:
    """Open an archive; raise `Refused` with this rule and the reason if it is none."""
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # untrusted bytes raise many types
        raise Refused(str(path), NO_VALUE, f"{rule} ({error})", way_out) from None


def open_zip(path: Path) -> tuple[list[str], Read]:
    """Return the names of an archive's files and a function that reads one.

    Backslashes and `./` in names become what they mean. Raise `Refused` if a member is a link, encrypted,
    packed by an unusual method or named by a path outside, if two have one name, or if there are too many.
    """
    archive = opened(path, "is no readable zip file", "pack it again")
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise Refused(str(path), NO_VALUE, f"has {len(infos)} members, more than {MAX_MEMBERS}", "split it")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = _plain(info.filename)
        if not name or name.endswith("/"):
            continue
        _check_member(info, name, path)
        first = members.setdefault(name, info)
        if (first.CRC, first.file_size) != (info.CRC, info.file_size):
            rule = "is there twice, with different bytes"
            raise Refused(f"{path}: member {info.filename!a}", NO_VALUE, rule, "remove one")

    def read(name: str) -> bytes:
        with archive.open(members[name]) as handle:
            return handle.read(MAX_BYTES + 1)

    return list(members), read


def checked(read: Read, path: Path) -> Read:
    """Return the same function with failures to read raised as `BadImage`."""

    def read_checked(name: str) -> bytes:
        try:
            return read(name)
        except MemoryError:
            raise
        except Exception as error:  # damaged archives raise many types
            rule = f"cannot be read ({getattr(error, 'strerror', None) or error})"
            raise BadImage(f"{path}: {name}", NO_VALUE, rule, "replace it", "unreadable") from None

    return read_checked


def leaves(name: str) -> bool:
    """Return whether a name from a list or an archive has empty, `.` or `..` parts, or backslashes."""
    return "\\" in name or bool({"", ".", ".."} & set(name.split("/")))


def _plain(name: str) -> str:
    """Return a member's name with / for the backslashes of Windows and without `./`."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part != ".")


def _check_member(info: zipfile.ZipInfo, name: str, path: Path) -> None:
    faults = {
        "is a link": stat.S_ISLNK(info.external_attr >> 16),
        "is a path that leaves the archive or goes around in it": leaves(name),
        "is encrypted": bool(info.flag_bits & 1),
        f"is packed by method {info.compress_type}": info.compress_type not in METHODS,
    }
    for rule, is_so in faults.items():
        if is_so:
            way_out = "pack plain folders of images with deflate"
            raise Refused(f"{path}: member {info.filename!a}", NO_VALUE, rule, way_out)

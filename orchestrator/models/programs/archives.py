"""Zip archives of programs, read without torch within bounds and written anew: torch gets no byte of a file
that was not read and checked here, whatever its own reader of archives makes of an odd one."""

import io
import re
import zipfile
from collections.abc import Mapping

from orchestrator.config.base import NO_VALUE, Refused, shortened

AGAIN = "save the program again and stage that"
MAX_RATIO, FREE = 10, 1 << 20
"""Bytes in memory for each of a file, since weights hardly shrink when they are packed, and those beside."""

MAX_RECORDS = 100_000
_NAME = re.compile(r"[\w.+ -]+(/[\w.+ -]+)*", re.ASCII)
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_archive(data: bytes, where: str) -> dict[str, bytes]:
    """Return the records of an archive by name, without the folder that torch puts all of them into.

    Raise `Refused` under the name `where` if it is damaged, unpacks to far more than its size, or holds a
    name twice or one that leads out of the archive.
    """
    try:
        return _read(data, where)
    except Refused:
        raise
    except Exception as error:  # zipfile and zlib raise a dozen kinds, depending on where a file is damaged
        rule = f"is a zip archive that is damaged or cut short ({type(error).__name__})"
        raise Refused(where, NO_VALUE, rule, AGAIN) from None


def write_archive(records: Mapping[str, bytes]) -> bytes:
    """Return an archive of records as torch reads it: unpacked, in one folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records.items():
            archive.writestr(zipfile.ZipInfo(f"program/{name}"), content)
    return buffer.getvalue()


def _read(data: bytes, where: str) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        unpacked = sum(one.file_size for one in entries)
        if unpacked > MAX_RATIO * len(data) + FREE or len(entries) > MAX_RECORDS:
            rule = f"has {len(data)} bytes and would unpack to {unpacked} in {len(entries)} records"
            raise Refused(where, NO_VALUE, rule, "do not unpack it; get it from its publisher again")
        records: dict[str, bytes] = {}
        for one in entries:
            name = one.filename.partition("/")[2]
            is_odd = _NAME.fullmatch(one.filename) is None or not name or ".." in one.filename.split("/")
            if is_odd or name in records or one.compress_type not in _PACKED:
                raise Refused(where, NO_VALUE, f"holds the odd record {shortened(one.filename)}", AGAIN)
            records[name] = archive.read(one)
        folders = {one.filename.partition("/")[0] for one in entries}
        if len(folders) != 1 or min(one.header_offset for one in entries) != 0:  # or one within another
            raise Refused(where, NO_VALUE, "is a zip archive that no version of torch saved", AGAIN)
        return records

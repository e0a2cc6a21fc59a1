"""Names of a classifier's classes from a file, for staging: one a line, in the order of the outputs."""

from pathlib import Path

from orchestrator.config.base import Refused


def class_names(path: str) -> tuple[str, ...] | None:
    """Return the names in a file, without blank lines; None without a path.

    Raise `Refused` of `--classes` if it is no UTF-8 text, holds no name, or one twice.
    """
    if not path:
        return None
    if not Path(path).is_file():
        raise Refused("--classes", path, "is no file", "give a file of names, one a line")
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise Refused("--classes", path, "is no UTF-8 text", "give a file of names, one a line") from None
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise Refused("--classes", path, "holds no name", "give a file of names, one a line")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise Refused("--classes", path, f"names {twice} twice", "give one name a line")
    return names

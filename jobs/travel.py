"""Warnings of images in the working directory, which git and `ray job submit --working-dir .` take along."""

from pathlib import Path

import typer

from orchestrator.store.directory import IGNORE_FILES


def warn_of_source(text: str) -> None:
    """Print a warning if a source of images lies in the working directory and no ignore file lists it."""
    path = Path(text if Path(text).exists() else text.partition(":")[2])
    if path.name and path.exists() and _travels(path):
        _warn(
            f"SOURCE={text} lies in the working directory: git add . and ray job submit --working-dir . "
            f"take it along; move it elsewhere, or list it in {' and '.join(IGNORE_FILES)}."
        )


def warn_of_destination(text: str) -> None:
    """Print a warning if a data location lies in the working directory and no ignore file lists it."""
    if "://" not in text and _travels(Path(text)):
        _warn(
            f"DEST={text} lies in the working directory: the ignore files in its folders keep them out of "
            "git add . and ray job submit --working-dir ., a location elsewhere needs none."
        )


def _warn(text: str) -> None:
    typer.echo(f"warning: {text}", err=True)


def _travels(path: Path) -> bool:
    """Return whether a path is in the working directory and its first folder there is on no ignore list."""
    here = Path.cwd()
    if not path.resolve().is_relative_to(here):
        return False
    parts = path.resolve().relative_to(here).parts
    listed = {line.strip().strip("/") for name in IGNORE_FILES for line in _lines(here / name)}
    return not parts or parts[0] not in listed


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []

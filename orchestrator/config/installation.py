"""How this package is installed and was started: the folder that holds it, and how its commands are called.

Messages of every room name commands, so this lies below all of them.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds this package and `jobs`: a checkout, which has a Makefile, or site-packages."""


def called(command: str) -> list[str]:
    """Return the words that call a command of `jobs/`: `inversion` where this process is, or `python -m`."""
    if Path(sys.argv[0]).name == "inversion":
        return ["inversion", command.replace("_", "-")]
    return ["python", "-m", f"jobs.{command}"]


def to_call(command: str, *arguments: str) -> str:
    """Return the line that calls a command of `jobs/` with arguments, for a way out."""
    return " ".join((*called(command), *arguments))

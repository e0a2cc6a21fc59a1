"""Texts for people: of libraries and servers, in one line without escape codes and passwords."""

import re

from orchestrator.runtime.http import redact

MAX_CHARACTERS = 300
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])")  # colours, titles
_ENDS = re.compile(r"(?<=[.!?:;]) ")


def sentences(text: str, limit: int = MAX_CHARACTERS) -> str:
    """Return the first sentences of a text within `limit` characters; of a longer one its first words."""
    printable = "".join(c if c.isprintable() else " " for c in _ESCAPES.sub("", text))
    plain, kept = redact(" ".join(printable.split())), ""
    for sentence in _ENDS.split(plain):
        if len(kept) + len(sentence) >= limit:
            break
        kept = f"{kept} {sentence}".strip()
    if kept or not plain:
        return kept.rstrip(".:;")
    return f"{plain[:limit].rpartition(' ')[0] or plain[:limit]} ..."


def last_line(text: str) -> str:
    """Return the sentences of a text's last line: of a traceback, the error."""
    lines = [line for line in text.splitlines() if line.strip()]
    return sentences(lines[-1]) if lines else ""

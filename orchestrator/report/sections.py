"""Sections of a report: one that fails is left out, its fault kept as a line, and the others are made."""

import logging
from collections.abc import Callable
from typing import TypeVar

from orchestrator.config.base import Refused
from orchestrator.store.artifacts import Corrupt

logger = logging.getLogger(__name__)

Made = TypeVar("Made")
Other = TypeVar("Other")


class Sections:
    """Makes the parts of a report."""

    def __init__(self) -> None:
        self.faults: dict[str, list[str]] = {}
        """Section -> a line for each of its parts that could not be made."""

    def made(self, section: str, part: str, make: Callable[[], Made], otherwise: Other) -> Made | Other:
        """Return what `make` returns; `otherwise` if it fails, with the fault kept and logged.

        Raise `Corrupt` for a damaged file, which can be built again, and `Refused` for what the study names
        and is not there.
        """
        try:
            return make()
        except (Corrupt, Refused):
            raise
        except Exception as error:
            reason = " ".join(str(error).split()) or "no message"
            line = f"{part} could not be made: {type(error).__name__}: {reason}"
            self.faults.setdefault(section, []).append(line)
            logger.warning("event=section_left_out section=%s reason=%r", section, line, exc_info=True)
            return otherwise

    @property
    def lines(self) -> list[str]:
        """Every fault."""
        return [line for own in self.faults.values() for line in own]

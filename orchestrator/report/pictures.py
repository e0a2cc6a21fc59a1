"""Drawing that cannot end a report: a picture that fails is left out with a warning."""

import logging
from collections.abc import Callable
from typing import ParamSpec

from orchestrator.store.artifacts import Corrupt

logger = logging.getLogger(__name__)

Given = ParamSpec("Given")


def drawn(
    name: str, draw: Callable[Given, bytes | None], *args: Given.args, **kwargs: Given.kwargs
) -> bytes | None:
    """Return the picture; None, with a warning, if drawing it fails.

    Raise `Corrupt` for a damaged file, which can be built again.
    """
    try:
        return draw(*args, **kwargs)
    except Corrupt:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or "no message"
        logger.warning(
            "event=picture_left_out name=%s error=%s reason=%r", name, type(error).__name__, reason
        )
        return None

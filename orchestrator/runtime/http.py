"""One question to a server over HTTP, for checks: an answer, or in words why there is none."""

import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from types import MappingProxyType

ANSWER_SECONDS = 5.0
MOST_BYTES = 500  # of an answer, unless more is wanted
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def redact(text: str) -> str:
    """Hide user and password of every URI in a text."""
    return re.sub(r"://[^/\s]*@", "://***@", text)  # up to the last @: a password may hold one


def get(url: str, headers: Mapping[str, str] = _NO_HEADERS, most: int = MOST_BYTES) -> tuple[str, int]:
    """Return the beginning of an answer's text and its status; a reason and 0 if there is no answer."""
    try:
        request = urllib.request.Request(url, headers=dict(headers))
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            return answer.read(most).decode(errors="replace").strip(), answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.read(MOST_BYTES).decode(errors="replace"), error.code
    except urllib.error.URLError as error:
        return redact(str(error.reason)), 0
    except (OSError, ValueError) as error:
        return redact(str(error)) or type(error).__name__, 0

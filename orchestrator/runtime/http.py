"""HTTP requests of checks: one GET without retries, for the text of an answer or the reason of a failure."""

import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from types import MappingProxyType

ANSWER_SECONDS = 5.0
MAX_BYTES = 500  # of an answer, by default
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def redact(text: str) -> str:
    """Replace user and password of every URI in a text by ***."""
    return re.sub(r"://[^/\s]*@", "://***@", text)  # up to the last @: a password may hold one


def get(url: str, headers: Mapping[str, str] = _NO_HEADERS, max_bytes: int = MAX_BYTES) -> tuple[str, int]:
    """Return the first `max_bytes` of an answer as text and its status; a reason and 0 without an answer."""
    try:
        request = urllib.request.Request(url, headers=dict(headers))
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            return answer.read(max_bytes).decode(errors="replace").strip(), answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.read(MAX_BYTES).decode(errors="replace"), error.code
    except urllib.error.URLError as error:
        return redact(str(error.reason)), 0
    except (OSError, ValueError, HTTPException) as error:
        return redact(str(error)) or type(error).__name__, 0

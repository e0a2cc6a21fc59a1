"""HTTP to one service: a request is sent once and ends as an answer, a failure to try again, or a refusal.

Nothing that is raised or logged holds the key: addresses are shown without their query, and
what an answer says with *** in the place of the key.
"""

import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

import urllib3

from orchestrator.config.base import NO_VALUE, Refused, one_line, shortened
from orchestrator.config.service import KEY, Asking, Service
from orchestrator.models.services.images import Body

MAX_BYTES = 64 * 2**20  # of a response
DEFAULTS = {"User-Agent": "inversion-orchestrator", "Accept": "application/json"}
SHOWN_BYTES = 2**16  # of a response, of which a message shows a part
PART_BYTES = 2**16  # read at a time
SHORTEST_HIDDEN = 6  # characters of a key that is searched for in what is stored: a shorter one is in words
AGAIN = (408, 425, 429)
"""Statuses beside 5xx after which a request is sent again."""


class Unanswered(Exception):
    """A request that may be sent again: the reason, and the seconds that the service asks to wait."""

    def __init__(self, reason: str, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.wait_seconds = reason, wait_seconds


@dataclass(frozen=True)
class Key:
    """The value of a key, which is shown nowhere, not even where this object is."""

    value: str

    def __repr__(self) -> str:
        return "Key(***)"

    def hidden_in(self, text: str) -> str:
        """Return a text with *** for the key, as it is or as JSON writes it."""
        for one in {self.value, json.dumps(self.value)[1:-1], self.value.replace("/", "\\/")} - {""}:
            text = text.replace(one, "***")
        return text

    def hidden_in_texts(self, value: Any) -> Any:
        """Return a JSON value with *** for the key in its texts and names; its numbers as they are."""
        if len(self.value) < SHORTEST_HIDDEN:
            return value
        if isinstance(value, str):
            return value.replace(self.value, "***")
        if isinstance(value, dict):
            return {self.hidden_in_texts(name): self.hidden_in_texts(one) for name, one in value.items()}
        return [self.hidden_in_texts(one) for one in value] if isinstance(value, list) else value


def key_of(asking: Asking, environment: Mapping[str, str]) -> Key:
    """Return the key of a service, empty where it has none; raise `Refused` if the variable is not set."""
    if asking.key is None:
        return Key("")
    value = environment.get(asking.key, "").strip()
    if not value:
        rule = "names a variable that is not set in the environment of this process"
        raise Refused("asking.key", NO_VALUE, rule, "export it wherever stages run: here, or on every node")
    if not value.isprintable() or not value.isascii():
        raise Refused(
            "asking.key", NO_VALUE, "names a variable that holds what no header can", "export the key alone"
        )
    return Key(value)


class Client:
    """Sends requests of one service; threads may share it. `name` is what a refusal calls the service."""

    def __init__(self, service: Service, asking: Asking, key: Key, name: str) -> None:
        self._service, self._name, self._key = service, name, key
        own = {one: value.replace(KEY, key.value) for one, value in service.headers.items()}
        named = {one.lower() for one in own}
        self._headers = {one: value for one, value in DEFAULTS.items() if one.lower() not in named} | own
        self._seconds = asking.timeout_seconds
        timeout = urllib3.Timeout(total=asking.timeout_seconds)
        # No retries and no redirects of its own: each request has to be counted before it is sent.
        self._pool = urllib3.PoolManager(maxsize=asking.parallel, timeout=timeout, retries=False)

    def send(self, body: Body) -> Any:
        """Send a request; return the response's JSON.

        Raise `Unanswered` if it may be sent again, `Refused` if that would not help.
        """
        service = self._service
        headers = {**self._headers, "Content-Type": body.media_type}
        end = time.monotonic() + self._seconds
        try:
            response = self._pool.request(
                service.method,
                service.url,
                body=body.data,
                headers=headers,
                redirect=False,
                preload_content=False,
            )
            assert isinstance(response, urllib3.HTTPResponse)
            data = _read(response, end)
        except urllib3.exceptions.SSLError as error:
            if any(isinstance(one, ssl.SSLCertVerificationError) for one in error.args):
                rule = "cannot be trusted: its certificate is not valid here"
                raise self._refused(rule, "check url") from None
            raise Unanswered(_kind(error)) from None
        except urllib3.exceptions.LocationValueError:
            raise self._refused("is no address that can be asked", "check url") from None
        except (urllib3.exceptions.HTTPError, HTTPException, OSError) as error:
            raise Unanswered(_kind(error)) from None
        except ValueError:  # of a header; its text holds the header's value
            raise self._refused(
                "cannot be asked: a header is malformed", "correct headers or the key"
            ) from None
        return self._parsed(response.status, response.headers, data)

    def _parsed(self, status: int, headers: Mapping[str, str], data: bytes) -> Any:
        shown = shortened(one_line(self._key.hidden_in(data[:SHOWN_BYTES].decode(errors="replace")).strip()))
        if status in AGAIN or status >= 500:
            raise Unanswered(f"status {status}", _wait_seconds(headers.get("Retry-After", "")))
        if 300 <= status < 400:
            rule = f"redirects elsewhere (status {status}), which is not followed"
            raise self._refused(rule, "write the final address in url")
        if status >= 400:
            rule = f"refuses the request (status {status}: {shown or 'no text'})"
            raise self._refused(rule, "correct the description or the key, and stage it again")
        if len(data) > MAX_BYTES:
            raise self._refused(f"answers with more than {MAX_BYTES} bytes", "check url")
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            rule = f"answers with what is no JSON ({shown or 'nothing'})"
            raise self._refused(rule, "check url") from None

    def _refused(self, rule: str, way_out: str) -> Refused:
        return Refused(f"{self._name} at {self._service.place}", NO_VALUE, rule, way_out)


def _read(response: urllib3.HTTPResponse, end: float) -> bytes:
    """Return what a response holds, at most a part more than it may; its connection is used again.

    Raise `TimeoutError` if it is not whole at `end` on the monotonic clock.
    """
    data = bytearray()
    try:
        while part := response.read1(PART_BYTES):
            data += part
            if len(data) > MAX_BYTES:
                break
            if time.monotonic() > end:
                raise TimeoutError
    except BaseException:
        response.close()
        raise
    if len(data) > MAX_BYTES:
        response.close()
    else:
        response.release_conn()
    return bytes(data)


def _kind(error: Exception) -> str:
    """Return what went wrong, without the error's text, which may hold the address."""
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "no connection"
    if isinstance(error, urllib3.exceptions.TimeoutError | TimeoutError):
        return "no answer in time"
    return type(error).__name__


def _wait_seconds(text: str) -> float:
    """Return the seconds of a header Retry-After, a number or a date; 0 if there are none."""
    try:
        seconds = float(text) if text.replace(".", "", 1).isdecimal() else _RETRY.parse_retry_after(text)
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return 0.0
    return max(0.0, min(seconds, 1e6))


_RETRY = urllib3.util.Retry()

"""HTTP to one service: a request is sent once and ends as an answer, a failure to try again, or a refusal.

Nothing that is raised, logged or stored holds the key: addresses are shown without their query, an answer
that repeats the key has *** in its place.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import urllib3

from orchestrator.config.base import NO_VALUE, Refused, one_line, shortened
from orchestrator.config.service import KEY, Asking, Service
from orchestrator.models.services.images import Body

MAX_BYTES = 64 * 2**20  # of a response
DEFAULTS = {"User-Agent": "inversion-orchestrator", "Accept": "application/json"}
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


def key_of(asking: Asking, environment: Mapping[str, str]) -> Key:
    """Return the key of a service, empty where it has none; raise `Refused` if the variable is not set."""
    if asking.key is None:
        return Key("")
    value = environment.get(asking.key, "").strip()
    if not value:
        rule = "is not set in the environment of this process"
        raise Refused("asking.key", asking.key, rule, "export it wherever stages run: here, or on every node")
    if not value.isprintable() or not value.isascii():
        raise Refused("asking.key", asking.key, "holds what no header can", "export the key alone")
    return Key(value)


class Client:
    """Sends requests of one service; threads may share it. `name` is what a refusal calls the service."""

    def __init__(self, service: Service, asking: Asking, key: Key, name: str) -> None:
        self._service, self._name, self._key = service, name, key
        own = {one: value.replace(KEY, key.value) for one, value in service.headers.items()}
        named = {one.lower() for one in own}
        self._headers = {one: value for one, value in DEFAULTS.items() if one.lower() not in named} | own
        timeout = urllib3.Timeout(total=asking.timeout_seconds)
        # No retries and no redirects of its own: each request has to be counted before it is sent.
        self._pool = urllib3.PoolManager(maxsize=asking.parallel, timeout=timeout, retries=False)

    def send(self, body: Body) -> Any:
        """Send a request; return the response's JSON.

        Raise `Unanswered` if it may be sent again, `Refused` if that would not help.
        """
        service = self._service
        headers = {**self._headers, "Content-Type": body.media_type}
        try:
            response = self._pool.request(
                service.method,
                service.url,
                body=body.data,
                headers=headers,
                redirect=False,
                preload_content=False,
            )
            data = _read(response)
        except urllib3.exceptions.SSLError:
            raise self._refused("cannot be trusted: its certificate is not valid here", "check url") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unanswered(_kind(error)) from None
        return self._parsed(response.status, response.headers, data)

    def _parsed(self, status: int, headers: Mapping[str, str], data: bytes) -> Any:
        text = self._key.hidden_in(data[:MAX_BYTES].decode(errors="replace"))
        if status in AGAIN or status >= 500:
            raise Unanswered(f"status {status}", _wait_seconds(headers.get("Retry-After", "")))
        if 300 <= status < 400:
            rule = f"redirects elsewhere (status {status}), which is not followed"
            raise self._refused(rule, "write the final address in url")
        if status >= 400:
            rule = f"refuses the request (status {status}: {shortened(one_line(text.strip())) or 'no text'})"
            raise self._refused(rule, "correct the description or the key, and stage it again")
        if len(data) > MAX_BYTES:
            raise self._refused(f"answers with more than {MAX_BYTES} bytes", "check url")
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            shown = shortened(one_line(text.strip())) or "nothing"
            raise self._refused(f"answers with what is no JSON ({shown})", "check url") from None

    def _refused(self, rule: str, way_out: str) -> Refused:
        return Refused(f"{self._name} at {self._service.place}", NO_VALUE, rule, way_out)


def _read(response: urllib3.BaseHTTPResponse) -> bytes:
    """Return what a response holds, and one byte more than it may at most; its connection is used again."""
    try:
        data = response.read(MAX_BYTES + 1)
    except BaseException:
        response.close()
        raise
    if len(data) > MAX_BYTES:
        response.close()
    else:
        response.release_conn()
    return data


def _kind(error: Exception) -> str:
    """Return what went wrong, without the error's text, which may hold the address."""
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "no connection"
    if isinstance(error, urllib3.exceptions.TimeoutError | TimeoutError):
        return "no answer in time"
    return type(error).__name__


def _wait_seconds(text: str) -> float:
    """Return the seconds of a header Retry-After; 0 if there are none, or it is a date."""
    try:
        return max(0.0, min(float(text), 1e6))
    except ValueError:
        return 0.0

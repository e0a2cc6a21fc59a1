"""Answers of a service that were paid for: every request is numbered in the store before it is sent.

`services/<address>/requests/<number>.json` is created once, so that no two processes send the same number
and no number above the budget is sent, whatever dies when. The object is replaced by the response when it
has come, as it came: what it says is read by whoever needs it. One that stays empty was sent in vain, or its
response was lost with its sender.
"""

import base64
import json
import logging
import secrets
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.config.base import canonical, digest_of
from orchestrator.store.artifacts import Damaged, reread
from orchestrator.store.blobs import Blobs, sha256
from orchestrator.store.parallel import parallel_map

logger = logging.getLogger(__name__)
FOLDER = "services"


class Contended(Exception):
    """Another process sends requests to the address: the lease was lost."""


@dataclass(frozen=True)
class Response:
    """A stored response to a request."""

    name: str
    """Of its object in the store."""

    number: int
    """Images of the request."""

    packed: bytes  # JSON, compressed

    @property
    def content(self) -> Any:
        """What the service returned, as JSON values."""
        return json.loads(zlib.decompress(self.packed))


class Answers:
    """The requests to one address and the answers of one service there, by digest of the image.

    `refresh` reads what other processes have stored meanwhile. Threads may share an object.
    """

    def __init__(self, blobs: Blobs, address: str, service: str) -> None:
        """`address`: what requests are counted by; `service`: digest of what decides how it
        answers an image."""
        self._blobs, self._service = blobs, service
        self.folder = f"{FOLDER}/{digest_of(address)[:32]}"
        self.stored: dict[str, tuple[Response, int]] = {}
        """Digest of an image -> the response with its answer, and the image's place in the request."""
        self.num_sent = 0
        """Requests that have been numbered."""
        self._settled: set[str] = set()  # names whose content does not change any more
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Read what is new in the store."""
        names = self._blobs.names(f"{self.folder}/requests/")
        if names:
            self.num_sent = max(self.num_sent, _number(names[-1]))
        new = [name for name in names if name not in self._settled]
        for name, request in zip(new, parallel_map(self._read, new), strict=True):
            if request is None or "response" not in request:
                if request is not None and "failure" in request:
                    self._settled.add(name)
                continue
            self._settled.add(name)
            if request["service"] == self._service:
                self._add(name, request["images"], base64.b64decode(request["response"]))

    def reserve(self, budget: int) -> int | None:
        """Number a request that is about to be sent; None if `budget` of them have been.

        Raise `Contended` if the number was given to another process since `refresh`.
        """
        content = canonical({"sender": secrets.token_hex(16)}).encode()  # no two are alike: see `Blobs.put`
        with self._lock:
            if self.num_sent >= budget:
                return None
            self.num_sent += 1
            if self._blobs.put(self._name(self.num_sent), content, overwrite=False):
                return self.num_sent
        raise Contended(self.folder)

    def keep(self, number: int, images: Sequence[str], content: Any) -> None:
        """Store the response to a request, JSON values, with the digests of the request's images in order."""
        packed = zlib.compress(json.dumps(content).encode())
        text = base64.b64encode(packed).decode()
        self._replace(number, {"service": self._service, "images": list(images), "response": text})
        with self._lock:
            self._add(self._name(number), images, packed)

    def _add(self, name: str, images: Sequence[str], packed: bytes) -> None:
        response = Response(name, len(images), packed)
        self.stored |= {digest: (response, place) for place, digest in enumerate(images)}

    def note_failure(self, number: int, reason: str) -> None:
        """Store why a request has no answer."""
        self._replace(number, {"service": self._service, "failure": reason})

    def _replace(self, number: int, request: Mapping[str, object]) -> None:
        name, body = self._name(number), canonical(request)
        self._blobs.put(name, canonical({**request, "sha256": sha256(body.encode())}).encode())
        with self._lock:
            self._settled.add(name)

    def _read(self, name: str) -> dict[str, Any] | None:
        """Return a request's object; None if it is damaged, so that its images are asked for again."""

        def once() -> dict[str, Any] | None:
            data = self._blobs.get(name)
            return None if data is None else _parsed(data)

        try:
            return reread(once, f"name={name}")
        except Damaged as error:
            logger.warning("event=answers_damaged name=%s reason=%r", name, error.reason)
            return None

    def _name(self, number: int) -> str:
        return f"{self.folder}/requests/{number:08d}.json"


def _parsed(data: bytes) -> dict[str, Any]:
    """Return a request's object; raise `Damaged` if its bytes are not those that were put."""
    try:
        request: dict[str, Any] = json.loads(data)
        if "sender" in request:
            return request
        seal = request.pop("sha256")
        if sha256(canonical(request).encode()) != seal:
            raise ValueError("differs from the digest it carries")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(data, str(error).partition("\n")[0]) from None
    return request


def _number(name: str) -> int:
    return int(name.rpartition("/")[2].partition(".")[0])

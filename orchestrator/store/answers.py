"""Answers of a service that were paid for: every request is numbered in the store before it is sent.

`services/<address>/requests/<number>.json` is created once, so that no two processes send the same number
and no number above the budget is sent, whatever dies when. The object is replaced by the answers when they
have come; one that stays empty was sent in vain, or its answer was lost with its sender.
"""

import base64
import json
import logging
import secrets
import threading
import zlib
from collections.abc import Mapping

from orchestrator.config.base import canonical, digest_of
from orchestrator.store.artifacts import Damaged, reread
from orchestrator.store.blobs import Blobs, sha256
from orchestrator.store.parallel import parallel_map

logger = logging.getLogger(__name__)
FOLDER = "services"


class Answers:
    """The requests to one address and the answers of one service there, by digest of the image.

    `refresh` reads what other processes have stored meanwhile. Threads may share an object.
    """

    def __init__(self, blobs: Blobs, address: str, service: str) -> None:
        """`address`: what requests are counted by; `service`: digest of what decides the answers."""
        self._blobs, self._service = blobs, service
        self.folder = f"{FOLDER}/{digest_of(address)[:32]}"
        self.rows: dict[str, bytes] = {}
        """Digest of an image -> its answer."""
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
            if request is None or "answers" not in request:
                if request is not None and "failure" in request:
                    self._settled.add(name)
                continue
            self._settled.add(name)
            if request["service"] == self._service:
                self.rows |= {one: _row(text) for one, text in request["answers"].items()}

    def reserve(self, budget: int) -> int | None:
        """Number a request that is about to be sent; None if `budget` of them have been."""
        content = canonical({"sender": secrets.token_hex(16)}).encode()  # no two are alike: see `Blobs.put`
        with self._lock:
            while self.num_sent < budget:
                self.num_sent += 1
                if self._blobs.put(self._name(self.num_sent), content, overwrite=False):
                    return self.num_sent
        return None

    def keep(self, number: int, rows: Mapping[str, bytes]) -> None:
        """Store the answers to a request, by digest of the image."""
        texts = {one: base64.b64encode(zlib.compress(row)).decode() for one, row in rows.items()}
        self._replace(number, {"service": self._service, "answers": texts})
        with self._lock:
            self.rows.update(rows)

    def note_failure(self, number: int, reason: str) -> None:
        """Store why a request has no answer."""
        self._replace(number, {"service": self._service, "failure": reason})

    def _replace(self, number: int, request: Mapping[str, object]) -> None:
        name, body = self._name(number), canonical(request)
        self._blobs.put(name, canonical({**request, "sha256": sha256(body.encode())}).encode())
        with self._lock:
            self._settled.add(name)

    def _read(self, name: str) -> dict[str, dict[str, str]] | None:
        """Return a request's object; None if it is damaged, so that its images are asked for again."""

        def once() -> dict[str, dict[str, str]] | None:
            data = self._blobs.get(name)
            return None if data is None else _parsed(data)

        try:
            return reread(once, f"name={name}")
        except Damaged as error:
            logger.warning("event=answers_damaged name=%s reason=%r", name, error.reason)
            return None

    def _name(self, number: int) -> str:
        return f"{self.folder}/requests/{number:08d}.json"


def _parsed(data: bytes) -> dict[str, dict[str, str]]:
    """Return a request's object; raise `Damaged` if its bytes are not those that were put."""
    try:
        request: dict[str, dict[str, str]] = json.loads(data)
        if "sender" in request:
            return request
        seal = request.pop("sha256")
        if sha256(canonical(request).encode()) != seal:
            raise ValueError("differs from the digest it carries")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(data, str(error).partition("\n")[0]) from None
    return request


def _row(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


def _number(name: str) -> int:
    return int(name.rpartition("/")[2].partition(".")[0])

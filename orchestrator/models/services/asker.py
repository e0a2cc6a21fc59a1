"""Asking a service: what is stored is not asked again, a request is counted before it is sent.

One process at a time asks an address, under a lease in the store; the others wait and read what it stored.
The count in the store bounds the requests even where a lease is lost; who notices that waits for it again.
"""

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.config.service import Asking, Service
from orchestrator.models.services.client import Client, Key, Unanswered, key_of
from orchestrator.models.services.images import Sent, body_of
from orchestrator.models.services.responses import Reader
from orchestrator.store.answers import Answers, Contended, Response
from orchestrator.store.directory import HOST
from orchestrator.store.leases import Leases, held
from orchestrator.store.parallel import parallel_map

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds between two requests for one thing
LONGEST_WAIT = 600.0  # seconds that a service may ask to wait
POLL_SECONDS = 0.2  # between two looks whether the process has to end


class Stopped(Exception):
    """The process has to end; what was answered is stored."""


@dataclass
class Asker:
    """Asks one service for images."""

    name: str
    """What messages call the service: `target.service=NAME`."""

    service: Service
    asking: Asking
    answers: Answers
    leases: Leases
    must_stop: Callable[[], bool] = lambda: False
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _next: float = field(default=0.0, init=False)  # monotonic time before which no request is sent
    _client: tuple[Client, Key] | None = field(default=None, init=False)
    _is_fresh: bool = field(default=False, init=False)
    _end: Refused | Contended | None = field(default=None, init=False)  # of one, after which no other is sent

    def rows(self, images: Sequence[Sent]) -> np.ndarray:
        """Return the scores of images, float32 (N, k), those that are not stored from the service.

        Raise `Refused` as `ask` does, and if an answer is not as the service is described.
        """
        self.ask(images)
        reader, read = self._reader, dict[str, list[Any]]()
        rows = np.empty((len(images), self.service.classes), dtype=np.float32)
        for row, one in zip(rows, images, strict=True):
            response, place = self.answers.stored[one.digest]
            with _reading(response):
                if response.name not in read:
                    read[response.name] = reader.answers(response.content, response.number)
                row[:] = reader.row(read[response.name][place])
        return rows

    def ask(self, images: Iterable[Sent]) -> None:
        """Have the answers to all of these images stored.

        Raise `Refused` before the first request if the budget does not suffice, and if the service refuses
        one or does not answer; `Stopped` if the process has to end.
        """
        wanted = {one.digest: one for one in images}
        if not self._is_fresh:
            self.answers.refresh()
            self._is_fresh = True
        while self._missing(wanted):
            owner = f"{HOST}-{os.getpid()}-{secrets.token_hex(4)}"
            with held(self.leases, "asking", owner, is_done=self.must_stop) as is_mine:
                if not is_mine:
                    raise Stopped("the sweep was interrupted")
                self.answers.refresh()
                try:
                    self._send_all(list(self._missing(wanted).values()))
                except Contended:
                    logger.warning("event=asking_contended service=%s", self.name)

    def _missing(self, wanted: dict[str, Sent]) -> dict[str, Sent]:
        return {digest: one for digest, one in wanted.items() if digest not in self.answers.stored}

    def _send_all(self, images: Sequence[Sent]) -> None:
        size = self.service.images_per_request
        batches = [images[start : start + size] for start in range(0, len(images), size)]
        if not batches:
            return
        self._check_budget(len(batches), len(images))
        if self._client is None:
            key = key_of(self.asking, os.environ)
            self._client = Client(self.service, self.asking, key, self.name), key
        self._next = max(self._next, time.monotonic() + self._interval)  # another may have sent one just now
        self._end = None
        try:
            for _ in parallel_map(self._answered, batches, self.asking.parallel):
                pass
        except Stopped:  # of a request before the one that ended it, in the order of images
            if self._end is not None:
                raise self._end from None
            raise
        left = self.asking.budget - self.answers.num_sent
        logger.info("event=service_asked service=%s images=%d budget_left=%d", self.name, len(images), left)

    def _answered(self, images: Sequence[Sent]) -> None:
        """Have the answers to the images of one request stored, unless another request was refused."""
        try:
            self._answer(images)
        except (Refused, Contended) as error:
            self._end = self._end or error
            raise

    def _answer(self, images: Sequence[Sent]) -> None:
        """Have the response to one request stored, before anything in it can be refused."""
        assert self._client is not None
        client, key = self._client
        body, reason = body_of(images, self.service, key.value), ""
        for attempt in range(self.asking.retries + 1):
            self._wait_for_turn()
            number = self.answers.reserve(self.asking.budget)
            if number is None:
                raise self._spent(reason)
            try:
                content = key.hidden_in_texts(client.send(body))
            except Unanswered as error:
                reason = error.reason
                self.answers.note_failure(number, reason)
                if attempt < self.asking.retries:
                    self._pause(self._seconds_before(attempt, error))
            except Refused as error:
                self.answers.note_failure(number, error.problem)
                raise
            else:
                digests = [one.digest for one in images]
                self.answers.keep(number, digests, content)
                response, _ = self.answers.stored[digests[0]]
                with _reading(response):
                    self._reader.rows(content, len(images))
                return
        rule = f"does not answer ({self.asking.retries + 1} requests, the last: {reason})"
        raise Refused(self._place, NO_VALUE, rule, "run the same command again when it does")

    def _seconds_before(self, attempt: int, error: Unanswered) -> float:
        if error.wait_seconds > LONGEST_WAIT:
            rule = f"asks to wait {error.wait_seconds:.0f} s ({error.reason})"
            raise Refused(self._place, NO_VALUE, rule, "run the same command again then")
        with self._lock:  # the service asks all of them to wait
            self._next = max(self._next, time.monotonic() + error.wait_seconds)
        return max(error.wait_seconds, min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**attempt))

    def _check_budget(self, needed: int, num_images: int) -> None:
        """Raise `Refused` if fewer requests are left than are needed without any failure."""
        left = self.asking.budget - self.answers.num_sent
        if needed > left:
            raise over_budget(self.name, needed, num_images, max(0, left), self.asking.budget)

    def _spent(self, reason: str) -> Refused:
        why = f", the last for {reason}" if reason else ""
        rule = f"has used up asking.budget={self.asking.budget} by requests sent again{why}"
        return Refused(self.name, NO_VALUE, rule, RAISE)

    @cached_property
    def _reader(self) -> Reader:
        return Reader(self.service, self.name)

    @property
    def _place(self) -> str:
        return f"{self.name} at {self.service.place}"

    @property
    def _interval(self) -> float:
        rate = self.asking.requests_per_second
        return 1.0 / rate if rate else 0.0

    def _wait_for_turn(self) -> None:
        """Wait until a request may be sent: no more of them in a second than the service allows."""
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._interval
        self._pause(turn - time.monotonic())

    def _pause(self, seconds: float) -> None:
        """Wait; raise `Stopped` as soon as the process has to end."""
        end = time.monotonic() + seconds
        while True:
            if self._end is not None or self.must_stop():
                raise Stopped("the sweep was interrupted")
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, POLL_SECONDS))


RAISE = "raise asking.budget in the description and stage it again, or attack with fewer images"


@contextmanager
def _reading(response: Response) -> Iterator[None]:
    """Add to a refusal of a stored response where that is: it is not asked for again by itself."""
    try:
        yield
    except Refused as error:
        way_out = f"{error.way_out}, or remove {response.name} in the store to ask again"
        raise Refused(error.field, error.value, error.rule, way_out) from None


def over_budget(name: str, needed: int, num_images: int, left: int, budget: int) -> Refused:
    """Return the refusal of what a budget does not suffice for."""
    rule = (
        f"needs {needed} requests for {num_images} images without an answer, "
        f"and {left} of asking.budget={budget} are left"
    )
    return Refused(name, NO_VALUE, rule, RAISE)

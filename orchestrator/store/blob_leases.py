"""Leases in a store, for processes that share nothing else: other sweeps, other clusters, a local run.

`<folder>/<key>/<number>.json` holds who has the lease; the highest number counts, and taking over is creating
the next one, which a store does once. An owner that no longer renews is told by the reader's own clock, so
that clocks of hosts need not agree; one that died on this host at once.
"""

import json
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.store.blobs import Blobs
from orchestrator.store.directory import HOST, is_alive


@dataclass(frozen=True)
class _Seen:
    """A lease as it was read, and since when it has not changed."""

    content: bytes
    since: float  # on the clock


class BlobLeases:
    """Implements `Leases` on a store; an object for each reader, which remembers what it saw when."""

    def __init__(self, blobs: Blobs, folder: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._blobs, self._folder, self._clock = blobs, folder, clock
        self._seen: dict[str, _Seen] = {}  # name -> what was read last

    def acquire(self, key: str, owner: str, seconds: float) -> bool:
        """Take or renew the lease for `seconds` from now; False while another owner holds it."""
        name = self._last(key)
        if name is None:
            return self._claim(key, 1, owner, seconds)
        content = self._blobs.get(name)
        if content is None:  # taken over in this moment
            return False
        lease = _parsed(content)
        if lease.get("owner") == owner:
            return self._blobs.put(name, _written(owner, seconds))
        if not self._is_over(name, content, lease):
            return False
        return self._claim(key, _number(name) + 1, owner, seconds)

    def release(self, key: str, owner: str) -> None:
        """Give the lease back if `owner` holds it."""
        name = self._last(key)
        content = self._blobs.get(name) if name else None
        if name and content and _parsed(content).get("owner") == owner:
            self._blobs.put(name, _written("", 0.0))

    def _last(self, key: str) -> str | None:
        names = self._blobs.names(f"{self._folder}/{key}/")
        return names[-1] if names else None

    def _claim(self, key: str, number: int, owner: str, seconds: float) -> bool:
        """Create the lease of a number; False if another did, or a higher one was there already."""
        own = f"{self._folder}/{key}/{number:08d}.json"
        if not self._blobs.put(own, _written(owner, seconds), overwrite=False):
            return False
        names = self._blobs.names(f"{self._folder}/{key}/")
        is_last = bool(names) and names[-1] == own
        for name in names:
            if is_last == (name < own) and name <= own:  # older ones, or this one that came too late
                self._blobs.remove(name)
        return is_last

    def _is_over(self, name: str, content: bytes, lease: dict[str, Any]) -> bool:
        """Return whether a lease was given back, or its owner died or has not renewed it."""
        if not lease.get("owner"):
            return True
        if lease.get("host") == HOST and not is_alive(int(lease["pid"])):
            return True
        seen = self._seen.get(name)
        if seen is None or seen.content != content:
            self._seen = {name: _Seen(content, self._clock())}
            return False
        return self._clock() - seen.since > float(lease["seconds"])


def _written(owner: str, seconds: float) -> bytes:
    nonce = secrets.token_hex(8)  # so that a renewal is another content
    lease = {"owner": owner, "seconds": seconds, "host": HOST, "pid": os.getpid(), "nonce": nonce}
    return json.dumps(lease).encode()


def _parsed(content: bytes) -> dict[str, Any]:
    """Return a lease; of a damaged one, that of no owner."""
    try:
        lease = json.loads(content)
    except ValueError:
        return {}
    is_whole = isinstance(lease, dict) and {"owner", "seconds", "host", "pid"} <= lease.keys()
    return lease if is_whole else {}


def _number(name: str) -> int:
    return int(name.rpartition("/")[2].partition(".")[0])

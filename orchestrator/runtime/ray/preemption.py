"""Preemption of a node: waits for the notice and drains the node in Ray, so that trainings save and move.

The notice is SIGTERM (Kubernetes, `docker stop`) or comes from EC2's metadata service, two minutes ahead.
"""

import json
import logging
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from orchestrator.config.base import NO_VALUE, Refused

logger = logging.getLogger(__name__)

TOKEN_PATH, ACTION_PATH = "/latest/api/token", "/latest/meta-data/spot/instance-action"
REQUEST_SECONDS = 2.0  # for one response of the metadata service
DRAIN_SECONDS = 20.0


def wait_for_preemption(metadata_url: str, poll_seconds: float, sigterm_seconds: float) -> float:
    """Wait for a notice; return the seconds until this machine is taken away.

    The metadata service is polled unless `metadata_url` is empty. SIGTERM and SIGINT count as a notice of
    `sigterm_seconds`.
    """
    is_signalled = threading.Event()

    def note_signal(number: int, frame: FrameType | None) -> None:
        is_signalled.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note_signal)
    while not is_signalled.wait(poll_seconds):
        if metadata_url and (seconds := spot_seconds(metadata_url)) is not None:
            return seconds
    return sigterm_seconds


def spot_seconds(metadata_url: str) -> float | None:
    """Return the seconds until EC2 takes this instance away, None without a notice or a readable response."""
    try:
        ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
        token = _fetch(Request(metadata_url + TOKEN_PATH, method="PUT", headers=ttl))
        headers = {"X-aws-ec2-metadata-token": token}
        notice = json.loads(_fetch(Request(metadata_url + ACTION_PATH, headers=headers)))
        end = datetime.fromisoformat(notice["time"].replace("Z", "+00:00"))
    except HTTPError as error:
        if error.code != 404:  # 404: no notice
            logger.warning("event=metadata_refused status=%d", error.code)
        return None
    except (URLError, OSError, ValueError, KeyError) as error:
        logger.warning("event=metadata_unread error=%s", type(error).__name__)
        return None
    return max(0.0, (end - datetime.now(UTC)).total_seconds())


def drain(seconds: float, node_id: str = "") -> None:
    """Drain this machine's node, or the one named, in Ray: it ends in `seconds`.

    Raise `Refused` if Ray does not take the notice.
    """
    ray = str(Path(sys.executable).parent / "ray")
    words = [ray, "drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "notice"]
    words += ["--deadline-remaining-seconds", str(round(seconds))]
    words += ["--node-id", node_id] if node_id else []
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=DRAIN_SECONDS, check=False)
        failed, reason = bool(done.returncode), (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    except subprocess.TimeoutExpired:
        failed, reason = True, f"no answer within {DRAIN_SECONDS:g} s"
    if failed:
        rule = f"did not take the notice: {reason}"
        raise Refused("ray", NO_VALUE, rule, "check RAY_ADDRESS and RAY_AUTH_MODE")


def _fetch(request: Request) -> str:
    with urlopen(request, timeout=REQUEST_SECONDS) as response:
        return str(response.read().decode())

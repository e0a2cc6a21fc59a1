"""A machine that is about to be taken away tells Ray so: what runs there saves its state and moves.

Notices come as SIGTERM (Kubernetes, `docker stop`) or from the metadata service of EC2, two minutes ahead.
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

logger = logging.getLogger(__name__)

TOKEN_PATH, ACTION_PATH = "/latest/api/token", "/latest/meta-data/spot/instance-action"
ASK_SECONDS = 2.0  # for one answer of the metadata service
DRAIN_SECONDS = 20.0


def wait_for_notice(metadata_url: str, poll_seconds: float, sigterm_seconds: float) -> float:
    """Return, when a notice comes, how many seconds this machine still has.

    An empty `metadata_url` asks nobody; SIGTERM and SIGINT count as a notice of `sigterm_seconds`.
    """
    told = threading.Event()

    def tell(number: int, frame: FrameType | None) -> None:
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, tell)
    while not told.wait(poll_seconds):
        if metadata_url and (seconds := spot_seconds(metadata_url)) is not None:
            return seconds
    return sigterm_seconds


def spot_seconds(metadata_url: str) -> float | None:
    """Return the seconds until EC2 takes this instance, None while it does not say so."""
    try:
        ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
        token = _ask(Request(metadata_url + TOKEN_PATH, method="PUT", headers=ttl))
        headers = {"X-aws-ec2-metadata-token": token}
        answer = json.loads(_ask(Request(metadata_url + ACTION_PATH, headers=headers)))
        end = datetime.fromisoformat(answer["time"].replace("Z", "+00:00"))
    except HTTPError as error:
        if error.code != 404:  # 404 is how it says that all is well
            logger.warning("event=metadata_refused status=%d", error.code)
        return None
    except (URLError, OSError, ValueError, KeyError) as error:
        logger.warning("event=metadata_unread error=%s", type(error).__name__)
        return None
    return max(0.0, (end - datetime.now(UTC)).total_seconds())


def drain(seconds: float, node_id: str = "") -> None:
    """Tell Ray that this machine's node, or the one named, ends so soon; `ValueError` if it refuses."""
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
        raise ValueError(f"ray did not take the notice: {reason}; check RAY_ADDRESS and RAY_AUTH_MODE.")


def _ask(request: Request) -> str:
    with urlopen(request, timeout=ASK_SECONDS) as answer:
        return str(answer.read().decode())

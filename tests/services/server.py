"""An example service on the loopback address: a small torch network behind HTTP, as a paid classifier is.

It asks for a key, answers with the m largest scores, limits requests in a second (429 with `Retry-After`),
fails with 503 now and then, and counts what arrives. By hand, with the description that fits it:

    EXAMPLE_KEY=secret python -m tests.services.server --port 8100 > service.yaml
"""

import argparse
import base64
import hashlib
import io
import json
import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from orchestrator.config import Data
from orchestrator.datasets import Location, load
from orchestrator.datasets.selection import target_images

SIDE, CLASSES = 32, 10
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""What the service calls the digits."""


class NearestMean(nn.Module):
    """Grey images (N, 1, 32, 32) in [0, 1] -> logits (N, 10): the nearest mean image of a class wins."""

    def __init__(self, means: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(means.shape[1], len(means))
        self.linear.weight.data = 0.2 * means
        self.linear.bias.data = -0.1 * means.square().sum(dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, 10)."""
        logits: Tensor = self.linear(images.flatten(1))
        return logits


def digits_network() -> NearestMean:
    """Return a network of the bundled digits, in the order of their names."""
    data = Data.model_validate({"dataset": "digits", "class_order": "staged"})
    seen = target_images(load("digits", Location()), data, CLASSES, "train")
    images = seen.images[:].float().flatten(1) / 255
    means = torch.stack([images[seen.labels == label].mean(dim=0) for label in range(CLASSES)])
    return NearestMean(means).eval().requires_grad_(False)


@dataclass
class Counts:
    """What arrived at the server."""

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    """SHA-256 of an image's pixels -> how often it was answered."""


class Server(ThreadingHTTPServer):
    """The service; `counts` may be read while it runs."""

    daemon_threads = True

    def __init__(
        self,
        network: nn.Module,
        *,
        key: str,
        port: int = 0,
        releases: int = 5,
        per_second: float = 0.0,
        error_every: int = 0,
        answer: Callable[[np.ndarray], Any] | None = None,
    ) -> None:
        """`per_second`: requests allowed in a second, 0 for any number; `error_every`: which fails."""
        super().__init__(("127.0.0.1", port), Handler)
        self.network, self.key, self.releases = network, key, releases
        self.per_second, self.error_every = per_second, error_every
        self.answer = answer or self.best
        self.counts, self.lock = Counts(), threading.Lock()
        self._recent: deque[float] = deque()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing of a client that was killed."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Where images are sent."""
        return f"http://127.0.0.1:{self.server_address[1]}/classify"

    def best(self, scores: np.ndarray) -> Any:
        """Return the answer to one image: the m largest scores with their labels."""
        order = np.argsort(-scores, kind="stable")[: self.releases]
        return {"top": [{"label": WORDS[place], "score": float(scores[place])} for place in order]}

    def status(self, key: str) -> tuple[int, int]:
        """Count a request that arrived; return its status and its number."""
        with self.lock:
            self.counts.requests += 1
            number, now, status = self.counts.requests, time.monotonic(), 200
            while self._recent and self._recent[0] <= now - 1.0:
                self._recent.popleft()
            if key != self.key:
                status = 401
            elif self.per_second and len(self._recent) >= self.per_second:
                status = 429
            elif self.error_every and number % self.error_every == 0:
                status = 503
            if status != 429:
                self._recent.append(now)
            self.counts.statuses[status] += 1
            return status, number


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        """Answer `{instances: [{b64: PNG in base64}, ...]}` with `{predictions: [...]}`."""
        data = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        status, _ = self.server.status(self.headers.get("X-Api-Key", ""))
        if status != 200:
            self._send(status, {"error": f"no, {self.headers.get('X-Api-Key')}"})
            return
        pixels = [_decoded(one["b64"]) for one in json.loads(data)["instances"]]
        images = torch.from_numpy(np.stack(pixels)).float()[:, None] / 255
        with torch.inference_mode():
            scores = self.server.network(images).softmax(dim=1).numpy()
        with self.server.lock:
            self.server.counts.answered.update(hashlib.sha256(one.tobytes()).hexdigest() for one in pixels)
        self._send(200, {"predictions": [self.server.answer(row) for row in scores]})

    def do_GET(self) -> None:
        """Answer how many requests arrived."""
        with self.server.lock:
            counts = self.server.counts
            about = {"requests": counts.requests, "images": len(counts.answered)}
            about |= {"most": max(counts.answered.values(), default=0)}
        self._send(200, about)

    def _send(self, status: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", "0.05")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def _decoded(text: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        assert image.size == (SIDE, SIDE)
        return np.asarray(image.convert("L"))


def description(url: str, *, releases: int = 5, **asking: Any) -> dict[str, Any]:
    """Return what describes the server, with how to ask it."""
    return {
        "url": url,
        "headers": {"X-Api-Key": "{key}"},
        "request": {"instances": [{"b64": "{image}"}]},
        "image_size": SIDE,
        "channels": 1,
        "images_per_request": 1,
        "response": {"answers": "predictions", "pairs": "top"},
        "outputs": "probabilities",
        "releases": releases,
        "names": [str(digit) for digit in range(CLASSES)],
        "labels": {word: str(digit) for digit, word in enumerate(WORDS)},
        "asking": {"budget": 2000, "key": "EXAMPLE_KEY", **asking},
    }


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Serve until the end of the block."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    """Print the description and serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--budget", type=int, default=2000)
    arguments = parser.parse_args()
    key = os.environ.get("EXAMPLE_KEY", "example")
    server = Server(digits_network(), key=key, port=arguments.port, per_second=50, error_every=100)
    how = description(server.url, budget=arguments.budget, requests_per_second=50)
    print(yaml.safe_dump(how, sort_keys=False), flush=True)
    sys.stdout.close()
    server.serve_forever()


if __name__ == "__main__":
    main()

"""HTTP to a service: what is sent again, what is not, and that the key is shown nowhere."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from orchestrator.config.base import Refused
from orchestrator.config.service import Asking
from orchestrator.models.services.client import Client, Key, Unanswered, key_of
from orchestrator.models.services.images import Body
from tests.config.test_service import described

SECRET = 'S3cr3t/"value'
BODY = Body(b'{"image": 1}', "application/json")


@dataclass
class Told:
    """What the next answer is, and what was asked."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b"{}"
    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def url(told: Told) -> Iterator[str]:
    """Return the address of a server that answers as it is told."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            told.asked.append((self.path, dict(self.headers), data))
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(told.content)))
            self.end_headers()
            self.wfile.write(told.content)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/classify?model=x"
        server.shutdown()
        thread.join()


def client(url: str, **asking: float) -> Client:
    service = described(url=url, method="PUT", headers={"X-Api-Key": "a {key}", "X-Other": "b"})
    how = Asking.model_validate({"budget": 1, "key": "NAME", **asking})
    return Client(service, how, Key(SECRET), "service")


def test_a_request_is_sent_as_described(url: str, told: Told) -> None:
    told.content = b'{"scores": [1]}'
    assert client(url).send(BODY) == {"scores": [1]}
    ((path, headers, data),) = told.asked
    assert (path, data) == ("/classify?model=x", BODY.data)
    assert headers["X-Api-Key"] == f"a {SECRET}"
    assert (headers["X-Other"], headers["Content-Type"]) == ("b", "application/json")


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_may_pass_is_sent_again_by_the_caller(status: int, url: str, told: Told) -> None:
    told.status, told.headers = status, {"Retry-After": "7"}
    with pytest.raises(Unanswered, match=f"^status {status}$") as caught:
        client(url).send(BODY)
    assert caught.value.wait_seconds == 7
    assert len(told.asked) == 1  # not by the library


def test_a_redirect_is_not_followed(url: str, told: Told) -> None:
    told.status, told.headers = 307, {"Location": url}
    with pytest.raises(
        Refused, match=r"/classify redirects elsewhere \(status 307\), which is not followed; "
    ):
        client(url).send(BODY)
    assert len(told.asked) == 1


@pytest.mark.parametrize("status", [200, 401])
@pytest.mark.parametrize("shown", [SECRET, json.dumps(SECRET), SECRET.replace("/", "\\/")])
def test_an_answer_that_repeats_the_key_is_shown_without(
    status: int, shown: str, url: str, told: Told
) -> None:
    told.status, told.content = status, f"no {shown} x".encode()
    with pytest.raises(Refused) as caught:
        client(url).send(BODY)
    assert "***" in str(caught.value)
    assert "S3cr3t" not in repr(caught.value)
    assert "model=x" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_address_without_a_server_is_no_answer() -> None:
    with pytest.raises(Unanswered, match=r"^no connection$"):
        client("http://127.0.0.1:9/x").send(BODY)


def test_the_key_is_in_the_environment_or_missing_in_one_line() -> None:
    how = Asking(budget=1, key="NAME")
    assert key_of(how, {"NAME": f" {SECRET}\n"}).value == SECRET
    assert key_of(Asking(budget=1), {}).value == ""
    assert "S3cr3t" not in repr(key_of(how, {"NAME": SECRET}))
    with pytest.raises(
        Refused, match=r"^asking\.key=NAME is not set in the environment of this process; export"
    ):
        key_of(how, {"NAME": " "})
    with pytest.raises(Refused, match=r"^asking\.key=NAME holds what no header can; export the key alone\.$"):
        key_of(how, {"NAME": "a\nb"})

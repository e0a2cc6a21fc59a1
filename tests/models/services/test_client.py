"""HTTP to a service: what is sent again, what is not, and that the key is shown nowhere."""

import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

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
    pause: float = 0.0  # seconds between two bytes of it
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
            for part in [told.content[i : i + 1] for i in range(len(told.content))] if told.pause else []:
                self.wfile.write(part)
                time.sleep(told.pause)
            if not told.pause:
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


def test_a_date_to_wait_for_is_read(url: str, told: Told) -> None:
    told.status, told.headers = 429, {"Retry-After": formatdate(time.time() + 100, usegmt=True)}
    with pytest.raises(Unanswered) as caught:
        client(url).send(BODY)
    assert 90 < caught.value.wait_seconds <= 101
    told.headers = {"Retry-After": "later"}
    with pytest.raises(Unanswered) as caught:
        client(url).send(BODY)
    assert caught.value.wait_seconds == 0


def test_the_time_is_of_the_whole_answer(url: str, told: Told) -> None:
    told.content, told.pause = b"1" * 40, 0.1  # each byte in time, the answer not
    begin = time.monotonic()
    with pytest.raises(Unanswered, match=r"^no answer in time$"):
        client(url, timeout_seconds=0.4).send(BODY)
    assert time.monotonic() - begin < 3


def test_data_that_holds_the_key_is_read_as_it_came(url: str, told: Told) -> None:
    told.content = b'{"scores": [0.123456], "echo": "a 123456"}'
    keyed = described(url=url, method="PUT", headers={"X-Api-Key": "{key}"})
    key = Key("123456")
    content = Client(keyed, Asking(budget=1, key="NAME"), key, "service").send(BODY)
    assert content == {"scores": [0.123456], "echo": "a 123456"}
    assert key.hidden_in_texts(content) == {"scores": [0.123456], "echo": "a ***"}
    assert Key("a").hidden_in_texts("label") == "label"


def test_an_error_of_a_header_does_not_show_it(url: str) -> None:
    service = described(url=url, method="PUT", headers={"X-Api-Key": "{key}"})
    broken = Client(service, Asking(budget=1, key="NAME"), Key("S3cr3t\nX: 1"), "service")
    with pytest.raises(Refused, match=r"cannot be asked: a header is malformed; ") as caught:
        broken.send(BODY)
    assert "S3cr3t" not in repr(caught.value)


def test_a_broken_handshake_is_sent_again(url: str) -> None:
    with pytest.raises(Unanswered, match=r"^SSLError$"):  # the server speaks no TLS
        client(url.replace("http:", "https:")).send(BODY)


def test_a_certificate_that_is_not_valid_is_refused(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate")
    files = [str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")]
    command = (
        f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout {files[0]} -out {files[1]}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files[1], files[0])
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            with suppress(OSError), context.wrap_socket(listening.accept()[0], server_side=True):
                pass

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        with pytest.raises(Refused, match=r"cannot be trusted: its certificate is not valid here; check url"):
            client(f"https://127.0.0.1:{listening.getsockname()[1]}/x").send(BODY)
        thread.join()


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
        Refused, match=r"^asking\.key names a variable that is not set in the environment of this"
    ):
        key_of(how, {"NAME": " "})
    with pytest.raises(
        Refused, match=r"^asking\.key names a variable that holds what no header can; export the"
    ):
        key_of(how, {"NAME": "a\nb"})

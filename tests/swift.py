"""OpenStack Swift with its S3 interface: an independent implementation, in processes of its own on loopback.

It is no requirement of the project: install `swift` and `pyeclib` into an environment of their own, and
name its interpreter in SWIFT_PYTHON.

    python3.11 -m venv swift && swift/bin/pip install swift pyeclib
    SWIFT_PYTHON=$PWD/swift/bin/python pytest -m slow tests/test_swift.py
"""

import getpass
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.servers import free_port

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "lab:researcher",
    "AWS_SECRET_ACCESS_KEY": "swift-secret-never-printed",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
START_SECONDS = 60.0

_COMMON = """
[DEFAULT]
swift_dir = {folder}
devices = {folder}/nodes
mount_check = false
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
log_level = WARNING
"""
_STORAGE = """
[pipeline:main]
pipeline = {kind}-server

[app:{kind}-server]
use = egg:swift#{kind}
"""
# s3api comes before the authentication that checks its signatures; slo puts uploads in parts together.
_PROXY = """
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck s3api tempauth slo proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true

[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_lab_researcher = {secret} .admin
[filter:slo]
use = egg:swift#slo
"""
_SWIFT = "[swift-hash]\nswift_hash_path_prefix = tests\nswift_hash_path_suffix = tests\n"
# One device, one copy: this is about the interface, not about copies.
_RINGS = """
import sys
from swift.common.ring import RingBuilder
folder, ports = sys.argv[1], sys.argv[2:]
for name, port in zip(("account", "container", "object"), ports):
    builder = RingBuilder(4, 1, 1)
    place = {"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "d1"}
    builder.add_dev({**place, "weight": 1.0})
    builder.rebalance()
    builder.get_ring().save(f"{folder}/{name}.ring.gz")
"""
_MODULES = {"account": "account", "container": "container", "object": "obj", "proxy": "proxy"}


def interpreter() -> str | None:
    """Return a Python that has Swift, or None."""
    for python in filter(None, (os.environ.get("SWIFT_PYTHON"), sys.executable)):
        found = subprocess.run([python, "-c", "import swift, pyeclib"], capture_output=True, check=False)
        if found.returncode == 0:
            return python
    return None


@contextmanager
def server(python: str, folder: Path) -> Iterator[str]:
    """Run Swift on a folder, which may have data already, until the block ends; yield its endpoint."""
    ports = {kind: free_port() for kind in _MODULES}
    (folder / "nodes" / "d1").mkdir(parents=True, exist_ok=True)
    (folder / "swift.conf").write_text(_SWIFT)
    for kind, port in ports.items():
        text = _COMMON.format(folder=folder, port=port, user=getpass.getuser())
        text += (_PROXY if kind == "proxy" else _STORAGE).format(
            kind=kind, secret=CREDENTIALS["AWS_SECRET_ACCESS_KEY"]
        )
        (folder / f"{kind}.conf").write_text(text)
    storage = [str(ports[kind]) for kind in ("account", "container", "object")]
    subprocess.run([python, "-c", _RINGS, str(folder), *storage], check=True, timeout=60)
    with ExitStack() as running:
        for kind in _MODULES:
            running.enter_context(_daemon(python, folder, kind))
        endpoint = f"http://127.0.0.1:{ports['proxy']}"
        _wait(f"{endpoint}/healthcheck", folder)
        yield endpoint


@contextmanager
def _daemon(python: str, folder: Path, kind: str) -> Iterator[None]:
    code = f"import sys; from swift.{_MODULES[kind]}.server import main; sys.exit(main())"
    with (folder / f"{kind}.log").open("wb") as log:
        process = subprocess.Popen(
            [python, "-c", code, str(folder / f"{kind}.conf")],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        for number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 10)):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(patience)


def _wait(url: str, folder: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        with suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.1)
    logs = "".join(path.read_text()[-800:] for path in sorted(folder.glob("*.log")))
    raise RuntimeError(f"Swift did not answer within {START_SECONDS:g} s: {logs}")


def environment(endpoint: str) -> Mapping[str, str]:
    """Return what clients of this server need."""
    return {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}

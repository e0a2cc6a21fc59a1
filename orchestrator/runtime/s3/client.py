"""S3 clients: their settings, the endpoint that the environment names, and the source of the credentials.

boto3 itself never repeats a request (`total_max_attempts` 1): `retry.repeat` does.
"""

import os
import threading
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.loaders
import botocore.session
from botocore.config import Config

CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": 1},
    connect_timeout=5,
    read_timeout=20,
    request_checksum_calculation="when_supported",
    response_checksum_validation="when_supported",
    max_pool_connections=32,
)
CHECKING = CONFIG.merge(Config(read_timeout=10))  # people wait for the answer
_OPENING = threading.Lock()  # boto3's session is not thread-safe, its clients are
_LOADER = botocore.loaders.create_loader()  # keeps the service model: 0.02 CPU seconds a client, not 0.1


def open_client(config: Config = CHECKING) -> Any:
    """Return a boto3 S3 client with path-style addresses where the environment names an endpoint.

    Raise `BotoCoreError` or ValueError if a profile or the endpoint's URL is unusable.
    """
    if named_endpoint():  # often a plain host, where bucket.host does not resolve
        config = config.merge(Config(s3={"addressing_style": "path"}))
    with _OPENING:
        session = botocore.session.get_session()
        session.register_component("data_loader", _LOADER)
        return boto3.session.Session(botocore_session=session).client("s3", config=config)


def credentials_source() -> str | None:
    """Return boto3's source of credentials (env, iam-role, shared-credentials-file, ...), or None."""
    credentials = boto3.session.Session().get_credentials()
    return None if credentials is None else str(credentials.method)


def named_endpoint() -> str:
    """Return the endpoint that the environment names, or an empty string."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def endpoint() -> str:
    """Return the endpoint's URL without user name and password; "AWS" if the environment names none."""
    named = named_endpoint()
    return f"{urlsplit(named).scheme}://{named.rpartition('@')[2].rpartition('//')[2]}" if named else "AWS"

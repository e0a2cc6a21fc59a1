"""S3 clients: their settings, the endpoint that the user names, and the source of the credentials.

What AWS_ variables and the profile in ~/.aws/config set is left to boto3: checksums, addresses, retries.
Without settings for retries boto3 never repeats a request (`total_max_attempts` 1): `retry.repeat` does.
"""

import os
import threading
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError

CONFIG = Config(
    connect_timeout=5,
    read_timeout=20,
    max_pool_connections=32,
)
CHECKING = CONFIG.merge(Config(read_timeout=10))  # people wait for the answer
_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_RETRY_SETTINGS = ("max_attempts", "retry_mode")  # in a profile; AWS_MAX_ATTEMPTS and AWS_RETRY_MODE
_OPENING = threading.Lock()  # boto3's session is not thread-safe, its clients are
_LOADER = botocore.loaders.create_loader()  # keeps the service model: 0.02 CPU seconds a client, not 0.1


def open_client(config: Config = CHECKING) -> Any:
    """Return a boto3 S3 client; settings of the environment and of ~/.aws/config come before those here.

    Raise `BotoCoreError` or ValueError if a profile or the endpoint's URL is unusable.
    """
    with _OPENING:
        session = botocore.session.get_session()
        session.register_component("data_loader", _LOADER)
        return boto3.session.Session(botocore_session=session).client("s3", config=_settled(config, session))


def _settled(config: Config, session: Any) -> Config:
    """Return the configuration with defaults for what the user has not set; boto3 reads the rest itself."""
    profile = session.get_scoped_config()
    if not any(os.environ.get(f"AWS_{name}".upper()) or profile.get(name) for name in _RETRY_SETTINGS):
        config = config.merge(Config(retries={"mode": "standard", "total_max_attempts": 1}))
    own = session.get_config_variable("s3") or {}
    if _named_endpoint(session)[0] and "addressing_style" not in own:
        # Often a plain host, where bucket.host does not resolve. `s3` replaces that of the profile.
        config = config.merge(Config(s3={**own, "addressing_style": "path"}))
    return config


def credentials_source() -> str | None:
    """Return boto3's source of credentials (env, iam-role, shared-credentials-file, ...), or None."""
    credentials = boto3.session.Session().get_credentials()
    return None if credentials is None else str(credentials.method)


def endpoint() -> str:
    """Return the endpoint's URL without user name and password; "AWS" if neither place names one."""
    named = _endpoint()[0]
    return f"{urlsplit(named).scheme}://{named.rpartition('@')[2].rpartition('//')[2]}" if named else "AWS"


def endpoint_setting() -> str:
    """Return the setting that names the endpoint: a variable, or one of ~/.aws/config."""
    return _endpoint()[1]


def _endpoint() -> tuple[str, str]:
    try:
        return _named_endpoint(botocore.session.get_session())
    except BotoCoreError:  # an unknown profile, which the client reports
        return "", _VARIABLES[-1]


def _named_endpoint(session: Any) -> tuple[str, str]:
    """Return the endpoint that boto3 takes from the environment or the profile, and the setting's name."""
    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return "", _VARIABLES[-1]
    for variable in _VARIABLES:
        if url := os.environ.get(variable):
            return url, variable
    profile = session.get_scoped_config()
    services = session.full_config.get("services", {}).get(profile.get("services"), {})
    url = services.get("s3", {}).get("endpoint_url") or profile.get("endpoint_url") or ""
    file = session.get_config_variable("config_file")
    return url, f"endpoint_url in {file}" if url else _VARIABLES[-1]

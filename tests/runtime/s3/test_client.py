"""Clients of S3: addresses, timeouts, the user's own settings, and the endpoint without its password."""

from pathlib import Path

import pytest

from orchestrator.runtime.s3.client import (
    CHECKING,
    CONFIG,
    credentials_source,
    endpoint,
    endpoint_setting,
    open_client,
)


def test_a_named_endpoint_gets_path_addresses(s3_endpoint: str) -> None:
    settings = open_client().meta.config
    assert settings.s3["addressing_style"] == "path"
    assert (settings.connect_timeout, settings.read_timeout) == (5, 10)
    assert (CONFIG.read_timeout, CHECKING.read_timeout) == (20, 10)


@pytest.mark.usefixtures("s3_endpoint")
def test_without_one_addresses_are_those_of_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert endpoint() == "AWS"
    assert "addressing_style" not in (open_client().meta.config.s3 or {})


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_the_endpoint_is_shown_without_its_password(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "https://user:hun@ter2@host:9000")
    assert endpoint() == "https://host:9000"


@pytest.mark.usefixtures("s3_endpoint")
def test_the_source_of_the_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    assert credentials_source() == "env"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert credentials_source() is None


PROFILE = """
[default]
endpoint_url = http://other:1
[profile lab]
services = lab
endpoint_url = http://other:2
max_attempts = 7
request_checksum_calculation = when_required
s3 =
    addressing_style = virtual
[services lab]
s3 =
    endpoint_url = http://storage:9000
"""


@pytest.fixture
def profiles(s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write profiles with endpoints; no variable names one."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    (tmp_path / "config").write_text(PROFILE)
    return tmp_path / "config"


def test_an_endpoint_of_a_profile_is_named_as_it_is(profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (endpoint(), endpoint_setting()) == ("http://other:1", f"endpoint_url in {profiles}")
    assert open_client().meta.endpoint_url == endpoint()
    assert open_client().meta.config.s3["addressing_style"] == "path"
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert endpoint() == open_client().meta.endpoint_url == "http://storage:9000"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://variable:1")
    assert (endpoint(), endpoint_setting()) == ("http://variable:1", "AWS_ENDPOINT_URL")
    assert open_client().meta.endpoint_url == endpoint()
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    assert endpoint() == "AWS"
    assert "amazonaws.com" in open_client().meta.endpoint_url
    monkeypatch.setenv("AWS_PROFILE", "absent")
    assert endpoint() == "AWS"


def test_settings_of_a_profile_are_heeded(profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "lab")
    settings = open_client(CONFIG).meta.config
    assert settings.retries["total_max_attempts"] == 7
    assert settings.request_checksum_calculation == "when_required"
    assert settings.s3["addressing_style"] == "virtual"
    assert (settings.connect_timeout, settings.read_timeout) == (5, 20)


@pytest.mark.usefixtures("s3_endpoint")
def test_variables_are_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = open_client().meta.config
    assert settings.retries == {"mode": "standard", "total_max_attempts": 1}
    assert settings.request_checksum_calculation == settings.response_checksum_validation == "when_supported"
    monkeypatch.setenv("AWS_RETRY_MODE", "adaptive")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "4")
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    settings = open_client().meta.config
    assert settings.retries == {"mode": "adaptive", "total_max_attempts": 4}
    assert settings.request_checksum_calculation == settings.response_checksum_validation == "when_required"

"""Clients of S3: addresses, timeouts, and the endpoint without its password."""

import pytest

from orchestrator.runtime.s3.client import CHECKING, CONFIG, credentials_source, endpoint, open_client


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

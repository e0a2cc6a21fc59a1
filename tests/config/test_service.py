"""What a service's description may say, and each line that it may not."""

from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.config.base import Refused
from orchestrator.config.service import Answer, Asking, Service, check_key, is_secret

PLAIN: dict[str, Any] = {
    "url": "https://host/classify",
    "request": {"image": "{image}"},
    "image_size": 32,
    "channels": 1,
    "response": {"scores": "scores"},
    "outputs": "probabilities",
    "names": ["a", "b", "c"],
}
PAIRS: dict[str, Any] = {"response": {"pairs": "top"}, "releases": 2}


def described(**changes: Any) -> Service:
    return Service.model_validate({**PLAIN, **changes})


def test_classes_are_counted_by_their_names() -> None:
    assert described().classes == 3
    assert described(names=None, classes=7).num_released == 7
    assert described(**PAIRS).num_released == 2
    assert described(outputs="labels", response={"label": ""}).num_released == 1
    assert described(url="https://host/classify?model=x").place == "https://host/classify"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"url": "host/classify"}, "url=host/classify is no address; write https://host/path."),
        ({"url": "ftp://host/x"}, "url=ftp://host/x is no address"),
        ({"url": "https://user:secret@host/x"}, "url=https://... holds credentials; write {key} in headers"),
        (
            {"url": "https://host/x?api_key=secret"},
            "url=https://host/x holds api_key in its query; write {key}",
        ),
        (
            {"headers": {"Authorization": "Bearer secret"}},
            "headers.Authorization would be stored with its value; write {key} in headers and name",
        ),
        ({"headers": {"Content-type": "x"}}, "headers.Content-type follows from body and url; leave it out."),
        ({"headers": {"X": "a\nb"}}, "headers=X is no header; write NAME: VALUE on one line, in ASCII."),
        ({"request": {"image": "x"}}, "request must hold {image} once, and holds it 0 times; write it where"),
        ({"request": ["{image}", "{image}"]}, "request must hold {image} once, and holds it 2 times"),
        (
            {"body": "raw"},
            "body=raw is the file of one image, without request, images_per_request and floats",
        ),
        (
            {"body": "multipart", "request": ["{image}"]},
            "request must be an object of texts, of which one is",
        ),
        (
            {"encoding": "floats", "request": {"image": "x{image}"}},
            "request must have {image} by itself where",
        ),
        (
            {"images_per_request": 2},
            "request has no list whose only entry holds {image}, which 2 images in a",
        ),
        (
            {"images_per_request": 2, "request": ["{image}"]},
            "response.answers is needed where a request has several images; name the list of answers.",
        ),
        ({"scaling": "imagenet"}, "scaling=imagenet and layout are of encoding=floats; leave them out."),
        ({"response": {}}, "scores or pairs or label must be set, one of them; set: none."),
        (
            {"response": {"scores": "", "label": "x"}},
            "scores or pairs or label must be set, one of them; set: scores and label.",
        ),
        (
            {"outputs": "labels"},
            "outputs=labels does not fit response.scores; use labels with response.label",
        ),
        ({"response": {"label": "x"}}, "outputs=probabilities does not fit response.label"),
        ({"releases": 4}, "releases=4 must lie in 1..classes=3; use null."),
        ({"outputs": "logits", "releases": 2}, "outputs=logits of some classes are no scores: their softmax"),
        ({"response": {"pairs": "top"}}, "releases is needed with response.pairs; write how many pairs"),
        ({"names": ["a", "a"]}, "names must be 2 different names, one for each of classes; correct them"),
        ({"classes": 2}, "names must be 2 different names, one for each of classes"),
        ({"labels": {"x": "d"}}, "labels=d is none of names; list every class in names."),
        ({"url": "https://[::1/x"}, "url is no address; write https://host/path."),
        ({"url": "https://host:99999/x"}, "url is no address; write https://host/path."),
        ({"url": "https://host/a b"}, "url=https://host/a b is no address"),
        ({"url": "https://host/x?sig=secret"}, "url=https://host/x holds sig in its query; write {key}"),
        ({"headers": {"X": "gr\u00fcn"}}, "headers=X is no header; write NAME: VALUE on one line, in ASCII."),
        (
            {"request": {"image": "{image}", "login": {"userPass": "secret"}}},
            "request.userPass would be stored with its value; write {key} for it and name an environment",
        ),
        (
            {"url": "http://host/x", "headers": {"X-Key": "{key}"}},
            "url=http://host/x would send {key} for anyone to read; write https://.",
        ),
        ({**PAIRS, "names": ["2", "b", "c"]}, "response.labels_are is needed: names or labels hold numbers"),
        ({**PAIRS, "labels": {"0": "b"}}, "response.labels_are is needed: names or labels hold numbers"),
    ],
    ids=range(34),
)
def test_what_cannot_be_described_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        described(**changes)
    assert text in str(caught.value)
    assert "secret" not in str(caught.value.errors()[0]["ctx"]["error"])


def test_an_address_has_one_form() -> None:
    forms = ("https://host/classify", "https://HOST/classify", "https://host:443/classify?")
    assert {described(url=url).address for url in forms} == {"https://host/classify"}
    assert len({described(url=url).asked["url"] for url in forms}) == 1
    assert described(url="http://[::1]:80").address == "http://[::1]/"
    assert described(url="https://host:80/A?b=C").address == "https://host:80/A?b=C"


def test_names_of_secrets_are_words() -> None:
    secret = ("X-Api-Key", "apiKey", "userPass", "SIG", "code", "jwt", "sas", "sessionId", "pwd")
    assert [name for name in secret if not is_secret(name)] == []
    plain = ("decoder", "design", "encode_format", "passenger", "model")
    assert [name for name in plain if is_secret(name)] == []


def test_numbers_that_are_their_own_places_need_no_word() -> None:
    assert described(**PAIRS, names=["0", "1", "x"]).response.labels_are is None


def test_this_host_may_get_a_key_without_encryption() -> None:
    for host in ("127.0.0.1", "[::1]", "localhost"):
        described(url=f"http://{host}:80/x", headers={"X-Key": "{key}"})


def test_a_key_is_used_where_it_is_named() -> None:
    keyed = described(headers={"X-Api-Key": "{key}"})
    check_key(keyed, Asking(budget=1, key="NAME"))
    check_key(described(request={"image": "{image}", "api_key": "{key}"}), Asking(budget=1, key="NAME"))
    check_key(described(), Asking(budget=1))
    with pytest.raises(
        Refused, match=r"^asking\.key is needed: headers or request hold \{key\}; name the environment"
    ):
        check_key(keyed, Asking(budget=1))
    with pytest.raises(Refused, match=r"^asking\.key is not used: no header and no text of request holds"):
        check_key(described(), Asking(budget=1, key="NAME"))


def test_a_path_has_no_empty_part() -> None:
    assert Answer(scores="").scores == ""
    with pytest.raises(ValidationError, match="pattern"):
        Answer(scores="a..b")

"""What a service's description may say, and each line that it may not."""

from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.config.base import Refused
from orchestrator.config.service import Answer, Asking, Service, check_key

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
        ({"headers": {"X": "a\nb"}}, "headers=X is no header; write NAME: VALUE on one line."),
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
    ],
    ids=range(25),
)
def test_what_cannot_be_described_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        described(**changes)
    assert text in str(caught.value)
    assert "secret" not in str(caught.value.errors()[0]["ctx"]["error"])


def test_a_key_is_used_where_it_is_named() -> None:
    keyed = described(headers={"X-Api-Key": "{key}"})
    check_key(keyed, Asking(budget=1, key="NAME"))
    check_key(described(), Asking(budget=1))
    with pytest.raises(Refused, match=r"^asking\.key is needed: headers hold \{key\}; name the environment"):
        check_key(keyed, Asking(budget=1))
    with pytest.raises(
        Refused, match=r"^asking\.key=NAME is not used: no header holds \{key\}; leave it out"
    ):
        check_key(described(), Asking(budget=1, key="NAME"))


def test_a_path_has_no_empty_part() -> None:
    assert Answer(scores="").scores == ""
    with pytest.raises(ValidationError, match="pattern"):
        Answer(scores="a..b")

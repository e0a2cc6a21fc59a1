"""Service: a classifier that answers over HTTP, as its owner's file describes it.

What `Service` holds decides what is answered and enters keys; `Asking` says how to ask, and enters none.
"""

import ipaddress
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from pydantic import Field, JsonValue, model_validator

from orchestrator.config.base import NO_VALUE, Count, Positive, Refused, Spec
from orchestrator.config.program import Side

IMAGE, KEY = "{image}", "{key}"
"""Placeholders: of an image in `request`, of the key's value in `headers` and in texts of `request`."""

_SECRET = re.compile(
    r"auth|key|token|secret|password|passwd|pwd|signature|cookie|credential|jwt|session"
    r"|(?<![a-z])(sig|code|pass|sas)(?![a-z])"
)
"""Names, in lower case with _ between words, whose values are not for a file."""


def is_secret(name: str) -> bool:
    """Return whether a name of a header, part of a query or member says that its value is secret."""
    return _SECRET.search(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()) is not None


ReadPath = Annotated[str, Field(pattern=r"^[^.\s]+(\.[^.\s]+)*$|^$", max_length=200)]
"""Names of objects' members and numbers of lists' entries, with dots between; empty: the whole."""


class Answer(Spec):
    """Where the answers are in a response, which is JSON."""

    answers: ReadPath | None = None
    """The list with an answer for each image of the request, in their order; null: the response is the answer
    to its one image."""

    scores: ReadPath | None = None
    """In an answer: a list of a score for each class, or an object of scores by label."""

    pairs: ReadPath | None = None
    """In an answer: a list of labels with their scores, of the highest ones."""

    label: ReadPath | None = None
    """In an answer: the label alone."""

    pair_label: str = "label"
    """In one of `pairs`: the member that is the label; of pairs that are lists the first entry is."""

    pair_score: str = "score"
    """In one of `pairs`: the member that is the score; of pairs that are lists the second entry is."""

    labels_are: Literal["names", "places"] | None = None
    """What a label that is a number is, where `names` or `labels` hold other numbers than places: names, as
    they are there, or places of classes."""

    @property
    def given(self) -> tuple[str, ...]:
        """Which of `scores`, `pairs` and `label` is set."""
        return tuple(name for name in ("scores", "pairs", "label") if getattr(self, name) is not None)

    @model_validator(mode="after")
    def _has_one_kind(self) -> Self:
        if len(self.given) != 1:
            rule = f"or pairs or label must be set, one of them; set: {' and '.join(self.given) or 'none'}"
            raise Refused("scores", NO_VALUE, rule)
        return self


class Asking(Spec):
    """How to ask a service: settings that change no answer."""

    budget: Count
    """Requests that may be sent in all, each retry counted, and a request with several images once. Those to
    one URL are counted together in the sweep's store, whoever sends them."""

    requests_per_second: Positive | None = None
    """Most of them in a second; null: as fast as answers come."""

    parallel: Annotated[int, Field(ge=1, le=64)] = 1
    """Requests on their way at once."""

    retries: Annotated[int, Field(ge=0, le=50)] = 5
    """How often a request is sent again after no answer, 429 or 5xx, with growing pauses or `Retry-After`."""

    timeout_seconds: Annotated[float, Field(gt=0.0, le=3600.0)] = 30.0
    """How long to wait for a whole answer."""

    key: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]{0,100}$")] | None = None
    """Name of the environment variable, in capitals, whose value takes the place of {key} in `headers` and in
    texts of `request`."""


class Service(Spec):
    """A classifier of which there is an address, not a network of this project."""

    url: Annotated[str, Field(max_length=2000)]
    """Where images are sent; redirects are not followed."""

    method: Literal["POST", "PUT"] = "POST"
    """Of the requests."""

    headers: dict[str, str] = Field(default_factory=dict)
    """Of the requests; {key} stands for the value of the variable `asking.key`."""

    body: Literal["json", "raw", "multipart"] = "json"
    """json, `request` with an image in the place of {image}; raw, one image's file; multipart, a form whose
    fields `request` names."""

    request: JsonValue = None
    """Of json: any value with one {image}; a list whose only entry holds it gets an entry for each image. Of
    multipart: an object of texts, of which one is {image}. {key} in a text is as in `headers`."""

    encoding: Literal["png", "jpeg", "floats"] = "png"
    """What {image} becomes: a file in base64 (as it is in raw and multipart), or nested lists of numbers."""

    image_size: Side
    """Side of the images that the service gets, in pixels."""

    channels: Literal[1, 3]
    """Of these images."""

    scaling: Literal["unit", "imagenet", "signed"] = "unit"
    """Of floats: what images of [0, 1] are scaled to, as in `target.model.scaling`."""

    layout: Literal["channels-first", "channels-last"] = "channels-first"
    """Of floats: C lists of rows, or rows of pixels of C numbers."""

    images_per_request: Annotated[int, Field(ge=1, le=1024)] = 1
    """Most images of a request."""

    response: Answer
    """Where the answers are."""

    outputs: Literal["probabilities", "logits", "labels"]
    """What it returns of each image; scores of probabilities are taken as they come, and are not made to
    sum to 1."""

    releases: Count | None = None
    """How many scores it returns of each image at most, the largest ones (m); null: one for each class, all
    of them there."""

    classes: Annotated[int, Field(ge=2, le=10_000_000)]
    """k, the number of classes that it tells apart; left out where `names` are given."""

    names: tuple[str, ...] | None = None
    """Names of the classes in the order of the scores; what it calls them where `labels` does not say so."""

    labels: dict[str, str] = Field(default_factory=dict)
    """What the service calls a class -> its name here."""

    @model_validator(mode="before")
    @classmethod
    def _names_are_counted(cls, value: Any) -> Any:
        names = value.get("names") if isinstance(value, dict) else None
        return {"classes": len(names), **value} if isinstance(names, list | tuple) else value

    @property
    def is_differentiable(self) -> bool:
        """Whether gradients reach the images: never."""
        return False

    @property
    def num_released(self) -> int:
        """How many entries of a row it returns: m, 1 of labels alone."""
        return 1 if self.outputs == "labels" else self.releases or self.classes

    @property
    def place(self) -> str:
        """The address without its query, to be shown."""
        return self.url.partition("?")[0]

    @property
    def address(self) -> str:
        """The address that requests are counted by: host in lower case, no default port, no empty query."""
        parts = urlsplit(self.url)
        host = str(parts.hostname)
        named = f"[{host}]" if ":" in host else host
        is_default = parts.port in (None, {"http": 80, "https": 443}[parts.scheme])
        where = named if is_default else f"{named}:{parts.port}"
        return urlunsplit((parts.scheme, where, parts.path or "/", parts.query, ""))

    @property
    def asked(self) -> dict[str, Any]:
        """What decides how the service answers an image, as JSON values: stored answers are kept by it."""
        return {name: self.plain[name] for name in _ASKED} | {"url": self.address}

    @property
    def scored(self) -> dict[str, Any]:
        """What decides the scores of an image, as JSON values: `asked` and how it is read. It enters keys."""
        rest = {name: value for name, value in self.plain.items() if name != "images_per_request"}
        return rest | self.asked

    @property
    def holds_key(self) -> bool:
        """Whether {key} is in a header or in the request."""
        return any(KEY in text for text in (*self.headers.values(), *_texts(self.request)))

    @property
    def places(self) -> dict[str, int]:
        """What the service calls a class -> the class's place among the scores."""
        places = {name: place for place, name in enumerate(self.names or ())}
        return places | {label: places[name] for label, name in self.labels.items()}

    @property
    def has_other_numbers(self) -> bool:
        """Whether a number is the name of another class than the one that has this place."""
        return any(name.isdecimal() and int(name[:20]) != place for name, place in self.places.items())

    @model_validator(mode="after")
    def _address_is_one(self) -> Self:
        try:
            parts = urlsplit(self.url)
            is_whole = bool(parts.hostname) and parts.port != 0
        except ValueError:
            raise Refused("url", NO_VALUE, "is no address", "write https://host/path") from None
        is_plain = self.url.isprintable() and " " not in self.url and "#" not in self.url
        if parts.scheme not in ("http", "https") or not is_whole or not is_plain:
            shown = NO_VALUE if "@" in self.url else self.place
            raise Refused("url", shown, "is no address", "write https://host/path")
        if parts.username is not None or parts.password is not None:
            raise Refused("url", f"{parts.scheme}://...", "holds credentials", _IN_HEADERS)
        for name, _ in parse_qsl(parts.query, keep_blank_values=True):
            if is_secret(name):
                raise Refused("url", self.place, f"holds {name} in its query", _IN_HEADERS)
        if parts.scheme == "http" and self.holds_key and not _is_loopback(str(parts.hostname)):
            raise Refused("url", self.place, f"would send {KEY} for anyone to read", "write https://")
        return self

    @model_validator(mode="after")
    def _secrets_are_elsewhere(self) -> Self:
        for name, value in self.headers.items():
            is_sent = value.isprintable() and value.isascii()
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not is_sent:
                raise Refused("headers", name, "is no header", "write NAME: VALUE on one line, in ASCII")
            if name.lower() in _OURS:
                raise Refused(f"headers.{name}", NO_VALUE, "follows from body and url", "leave it out")
            if is_secret(name) and KEY not in value:
                raise Refused(f"headers.{name}", NO_VALUE, "would be stored with its value", _IN_HEADERS)
        for name, text in _members(self.request):
            if is_secret(name) and text and KEY not in text and IMAGE not in text:
                way_out = f"write {KEY} for it and name an environment variable in asking.key"
                raise Refused(f"request.{name}", NO_VALUE, "would be stored with its value", way_out)
        return self

    @model_validator(mode="after")
    def _request_has_its_image(self) -> Self:
        if self.body == "raw":
            if self.request is not None or self.images_per_request > 1 or self.encoding == "floats":
                rule = "is the file of one image, without request, images_per_request and floats"
                raise Refused("body", "raw", rule, "leave them out or use json")
            return self
        texts = list(_texts(self.request))
        places = sum(text.count(IMAGE) for text in texts)
        if places != 1:
            rule = f"must hold {IMAGE} once, and holds it {places} times"
            raise Refused(
                "request", NO_VALUE, rule, 'write it where the image goes, such as {image: "{image}"}'
            )
        if self.body == "multipart":
            fields = self.request.values() if isinstance(self.request, dict) else [None]
            if IMAGE not in fields or not all(isinstance(one, str) for one in fields):
                raise Refused("request", NO_VALUE, f"must be an object of texts, of which one is {IMAGE}")
            if self.images_per_request > 1 or self.encoding == "floats":
                rule = "sends the file of one image, without images_per_request and floats"
                raise Refused("body", "multipart", rule, "leave them out or use json")
        elif self.encoding == "floats" and IMAGE not in texts:
            raise Refused("request", NO_VALUE, f"must have {IMAGE} by itself where an image is numbers")
        return self

    @model_validator(mode="after")
    def _images_have_their_answers(self) -> Self:
        number = self.images_per_request
        if number > 1 and not _has_row(self.request):
            rule = f"has no list whose only entry holds {IMAGE}, which {number} images in a request need"
            raise Refused("request", NO_VALUE, rule, "write one or leave images_per_request out")
        if number > 1 and self.response.answers is None:
            rule = "is needed where a request has several images"
            raise Refused("response.answers", NO_VALUE, rule, "name the list of answers")
        if self.encoding != "floats" and (self.scaling, self.layout) != ("unit", "channels-first"):
            raise Refused("scaling", self.scaling, "and layout are of encoding=floats", "leave them out")
        return self

    @model_validator(mode="after")
    def _outputs_are_in_the_response(self) -> Self:
        (kind,) = self.response.given
        if (kind == "label") != (self.outputs == "labels"):
            rule = f"does not fit response.{kind}"
            way_out = "use labels with response.label, the others with scores or pairs"
            raise Refused("outputs", self.outputs, rule, way_out)
        if self.releases is not None and self.releases > self.classes:
            raise Refused("releases", self.releases, f"must lie in 1..classes={self.classes}", "use null")
        if self.outputs == "logits" and (kind == "pairs" or self.num_released < self.classes):
            rule = "of some classes are no scores: their softmax is of all"
            raise Refused("outputs", "logits", rule, "use probabilities, or name where all logits are")
        if kind == "pairs" and self.releases is None:
            rule = "is needed with response.pairs"
            raise Refused("releases", NO_VALUE, rule, "write how many pairs it returns at most")
        if self.outputs == "labels" and self.releases not in (None, 1):
            raise Refused("releases", self.releases, "is of scores, and outputs=labels", "leave it out")
        return self

    @model_validator(mode="after")
    def _names_are_told_apart(self) -> Self:
        names = self.names or ()
        if self.names is not None and not len(names) == len(set(names)) == self.classes:
            rule = f"must be {self.classes} different names, one for each of classes"
            raise Refused("names", NO_VALUE, rule, "correct them or leave classes out")
        unknown = [name for name in self.labels.values() if name not in names]
        if unknown:
            raise Refused("labels", unknown[0], "is none of names", "list every class in names")
        (kind,) = self.response.given
        if kind != "scores" and self.has_other_numbers and self.response.labels_are is None:
            raise Refused("response.labels_are", NO_VALUE, *LABELS_ARE)
        return self


LABELS_ARE = (
    "is needed: names or labels hold numbers that are not the places of their classes",
    "write names if the service answers with these, places if it counts classes from 0",
)
"""Rule and way out where a label may be a name or a place."""

_ASKED = (
    "url",
    "method",
    "headers",
    "body",
    "request",
    "encoding",
    "image_size",
    "channels",
    "scaling",
    "layout",
)
"""Fields that decide how the service answers an image."""


_OURS = ("content-type", "content-length", "transfer-encoding", "host", "connection")
"""Headers that are not the description's."""

_IN_HEADERS = f"write {KEY} in headers and name an environment variable in asking.key"


def _texts(value: Any) -> Iterator[str]:
    """Yield every text of a JSON value, without the names of members."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _members(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text of a JSON value with the name of the member that holds it."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for member, one in value.items():
            yield from _members(one, member)
    elif isinstance(value, list):
        for one in value:
            yield from _members(one, name)


def _is_loopback(host: str) -> bool:
    """Return whether a host is this one, whatever a resolver says."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def holds_image(value: Any) -> bool:
    """Return whether a part of a request holds the image."""
    return any(IMAGE in text for text in _texts(value))


def is_row(value: Any) -> bool:
    """Return whether a part of a request is a list that gets an entry for each image."""
    return isinstance(value, list) and len(value) == 1 and holds_image(value)


def _has_row(value: Any) -> bool:
    if is_row(value):
        return True
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(_has_row, parts))


def check_key(service: Service, asking: Asking) -> None:
    """Raise `Refused` unless {key} is in a header or the request just where a variable is named."""
    if service.holds_key and asking.key is None:
        rule = f"is needed: headers or request hold {KEY}"
        raise Refused("asking.key", NO_VALUE, rule, "name the environment variable that has it")
    if asking.key is not None and not service.holds_key:
        rule = f"is not used: no header and no text of request holds {KEY}"
        raise Refused("asking.key", NO_VALUE, rule, "leave it out")

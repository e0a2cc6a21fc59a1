"""Page of a user study: blind, self-contained, and what its script refers to is there."""

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.config.base import Refused
from orchestrator.report.user_study import page as module
from orchestrator.report.user_study.answers import read_answers
from orchestrator.report.user_study.page import RATER, render
from tests.report.user_study.test_key import write
from tests.report.user_study.trials import study

NODE = shutil.which("node")
WORDS = ("budget", "full", "conv", "first", "second", "seed", "trial", "faces", "person", "TL-DMI", "test")
"""What names a setting, a trial, a study or a class."""


class Elements(HTMLParser):
    """Collects a page's elements and its script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.script = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.found.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        """Note the script."""
        self.script += data if self._inside == "script" else ""

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of each element of a kind."""
        return [attributes for name, attributes in self.found if name == tag]


def pixels(source: str | None) -> np.ndarray:
    """Return the image (3, S, S) of a data URI."""
    assert source is not None
    head, _, data = source.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).transpose(2, 0, 1)


def test_the_images_stand_where_the_questions_say() -> None:
    questions, key = study()
    images = Elements(render(key.page, questions).decode("ascii")).of("img")
    assert [image["alt"] for image in images] == ["photograph", "left image", "right image"] * 8
    wanted = [array for one in questions for array in (one.private, one.left, one.right)]
    assert all(
        np.array_equal(pixels(image["src"]), array) for image, array in zip(images, wanted, strict=True)
    )


def test_grey_images_are_shown_as_colour() -> None:
    questions, key = study(num_pairs=1)
    (one,) = questions
    grey = type(one)(one.private[:1], one.left[:1], one.right[:1], one.pair)
    shown = [pixels(image["src"]) for image in Elements(render(key.page, [grey]).decode()).of("img")]
    assert np.array_equal(shown[1], one.left[:1].repeat(3, axis=0))


def test_nothing_but_pixels_tells_the_settings_apart() -> None:
    questions, key = study()
    text = render(key.page, questions).decode("ascii")
    without = re.sub(r'src="[^"]*"', "", text)
    assert not [word for word in WORDS if re.search(rf"\b{word}\b", without, re.IGNORECASE)]
    sections = re.findall(r"<section.*?</section>", without, re.DOTALL)
    assert len(sections) == 8
    assert len(set(sections)) == 1  # no number, identifier or attribute differs
    assert not re.search(r"\d{4}", re.sub(key.page, "", sections[0]))


def test_sides_exchanged_exchange_pictures_only() -> None:
    questions, key = study(num_pairs=1)
    (one,) = questions
    turned = type(one)(one.private, one.right, one.left, one.pair)
    texts = [render(key.page, [question]).decode() for question in (one, turned)]
    assert sorted(texts[0]) == sorted(texts[1])
    assert texts[0] != texts[1]


def test_it_loads_and_sends_nothing() -> None:
    questions, key = study()
    text = render(key.page, questions).decode("ascii")
    page = Elements(text)
    (policy,) = (one["content"] for one in page.of("meta") if one.get("http-equiv"))
    assert policy is not None
    assert policy.split("; ") == [
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        "script-src 'unsafe-inline'",
    ]
    without = re.sub(r'src="data:[^"]*"', "", text)
    assert not re.search(r"//[a-z]|https?:|@import|url\(|fetch|XMLHttp|src=|href=", without)
    assert not page.of("link") + page.of("iframe")
    assert [attributes for tag, attributes in page.found if tag == "form"] == [{}]


def test_what_the_script_refers_to_is_on_the_page() -> None:
    questions, key = study()
    page = Elements(render(key.page, questions).decode())
    ids = {attributes["id"] for _, attributes in page.found if attributes.get("id")}
    assert set(re.findall(r'byId\("(\w+)"\)', page.script)) == ids
    assert page.of("body") == [{"data-page": key.page}]
    assert "${" not in re.sub(r"`[^`]*`", "", page.script)
    assert set(re.findall(r"\$\{([^}]*)\}", page.script)) == {
        "place + 1",
        "pairs.length",
        "page",
        'byId("rater").value',
    }
    assert f'const lines = ["{",".join(module.HEADER)}"]' in page.script
    (entry,) = page.of("input")
    assert entry["pattern"] == RATER
    assert entry["maxlength"] == "40"


def test_choices_are_buttons_for_the_keyboard_too() -> None:
    questions, key = study()
    page = Elements(render(key.page, questions).decode())
    choices = [button.get("value") for button in page.of("button") if button.get("value")]
    assert choices == ["left", "right"] * 8
    assert all(name in page.script for name in ("ArrowLeft", "ArrowRight", "Backspace"))
    assert not [attributes for _, attributes in page.found if "tabindex" in attributes]


def test_a_page_with_too_many_bytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    questions, key = study()
    monkeypatch.setattr(module, "MAX_BYTES", 2**10)
    with pytest.raises(Refused, match=r"^--pairs=8 make a page of 0 MiB, and it may have 0; lower it\.$"):
        render(key.page, questions)


@pytest.mark.skipif(NODE is None, reason="node is not on this machine")
def test_the_script_takes_keys_and_clicks_and_writes_what_is_read_back(tmp_path: Path) -> None:
    questions, key = study()
    write(tmp_path, key)
    script, answers = tmp_path / "page.js", tmp_path / "answers.csv"
    script.write_text(Elements(render(key.page, questions).decode()).script)
    command = [str(NODE), str(Path(__file__).with_name("browser.js")), str(script), key.page, "8"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    told = json.loads(done.stdout)
    assert told["begun"] == [False, "x-------", "1 of 8", False]
    assert told["back"] == ["-x------", "2 of 8"]
    assert told["unsaved"] is True
    assert told["saved"] == [False, f"answers-{key.page}-ann.csv"]
    answers.write_text(told["text"])
    _, read = read_answers([answers], tmp_path)
    sides = ["left", "left", *["right"] * 6]
    assert [(one.rater, one.pair) for one in read] == [("ann", pair) for pair in range(1, 9)]
    wanted = [side == pair.first for side, pair in zip(sides, key.pairs, strict=True)]
    assert [one.prefers_first for one in read] == wanted

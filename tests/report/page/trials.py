"""Sweeps made by hand for the tests of the page, and a reader of pages."""

import itertools
from collections.abc import Sequence
from html.parser import HTMLParser

from orchestrator.config.base import Scalar
from orchestrator.datasets.builtin import MemoryBlobs
from orchestrator.store.artifacts import Artifacts
from orchestrator.sweep.records import TrialRecord
from tests.report.trials import MSE, record

SKILL, ACCURACY, TOP1 = "inversion/skill_test", "target/accuracy", "attack/accuracy_top1_test"
YARDSTICK = 0.5
VOID = {"meta", "img", "input", "br", "line", "rect", "circle", "path", "polyline"}


def empty_store() -> Artifacts:
    """Return a store that holds nothing."""
    return Artifacts(MemoryBlobs("memory"))


def sweep(
    ms: Sequence[int] = (1, 3), words: Sequence[str] = ("full", "block1"), seeds: Sequence[int] = (0, 1, 2)
) -> list[TrialRecord]:
    """Return a grid in which larger m leaks more, and a frozen budget less at little accuracy."""
    found = []
    for index, (m, word, seed) in enumerate(itertools.product(ms, words, seeds)):
        error = 0.4 - 0.1 * ms.index(m) + 0.02 * words.index(word) + 0.001 * (seed - 1)
        metrics = {
            MSE: error,
            "yardstick/label_mse_test": YARDSTICK,
            SKILL: 1 - error / YARDSTICK,
            ACCURACY: 0.9 - 0.05 * words.index(word) + 0.001 * seed,
            TOP1: 0.5 + 0.1 * ms.index(m),
            "attack/queries": 200.0,
        }
        axes: dict[str, Scalar] = {"m": m, "budget": word, "seed": seed}
        found.append(record(index, axes, metrics, costs={"cost/cpu_seconds": 2.0 + seed}))
    return found


class Page(HTMLParser):
    """Reads a page strictly: every element closed in order, ids once, nothing fetched from elsewhere."""

    def __init__(self, content: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self.ids: list[str] = []
        self._answer: list[str] = []
        self._sections: dict[str, list[str]] = {}
        self._section = ""
        self.faults: list[str] = []
        self.tags: list[str] = []
        self.targets: list[str] = []
        self.cells: dict[str, list[list[str]]] = {}  # id of a table -> its rows of texts, the head first
        self._open: list[str] = []
        self._table = ""
        self.feed(content.decode())
        self.close()
        assert not self._open, f"not closed: {self._open}"
        assert len(self.ids) == len(set(self.ids)), "an id is there twice"
        assert {one.removeprefix("#") for one in self.targets} <= set(self.ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Check an element."""
        own = dict(attrs)
        self.tags.append(tag)
        if own.get("id"):
            self.ids.append(str(own["id"]))
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} has a handler"
            if name in ("src", "href", "action", "data", "srcset", "poster", "xlink:href"):
                assert str(value).startswith(("#", "data:image/")), f"{tag} refers to {value}"
                self.targets += [str(value)] if str(value).startswith("#") else []
        if tag == "img":
            assert own.get("alt"), "a picture without words"
        if tag == "svg":
            assert own.get("role") == "img"
            assert own.get("aria-label"), "a chart without words"
        self._section = str(own.get("id")) if tag == "section" else self._section
        if tag == "table":
            self._table = str(own.get("id"))
            self.cells[self._table] = []
        if tag == "tr":
            self.cells[self._table].append([])
        if tag in ("td", "th"):
            self.cells[self._table][-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Check that the innermost element ends."""
        if tag not in VOID:
            assert self._open.pop() == tag, f"{tag} ends too early"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Check an element that ends at once."""
        self.handle_starttag(tag, attrs)
        assert tag in VOID

    def handle_data(self, data: str) -> None:
        """Keep what a reader sees."""
        if self._open and self._open[-1] in ("script", "style"):
            assert "http:" not in data
            assert "https:" not in data
            assert "url(" not in data
            assert "@import" not in data
            return
        self.texts.append(data)
        self._sections.setdefault(self._section, []).append(data)
        if "could not be made: " in data:
            self.faults.append(data)
        if "ol" in self._open:
            self._answer.append(data)
        if self._open and "table" in self._open and {"td", "th"} & set(self._open):
            self.cells[self._table][-1][-1] += data

    @property
    def answer(self) -> str:
        """The lines of the answer: what a reader sees first."""
        return " ".join("".join(self._answer).split())

    def section(self, name: str) -> str:
        """Return everything that a reader sees in a section, blanks joined; empty for none of the name."""
        return " ".join("".join(self._sections.get(name, [])).split())

    @property
    def text(self) -> str:
        """Everything that a reader sees, blanks joined."""
        return " ".join("".join(self.texts).split())

"""Responses of a service: JSON to a row of scores for each image, or one line that says what is wrong."""

from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from orchestrator.config.base import NO_VALUE, Refused, shortened
from orchestrator.config.service import LABELS_ARE, Service

SLACK = 1e-3  # of a probability that was rounded
SUM_SLACK = 0.05  # of the sum of probabilities that were rounded, however many
LARGEST = 1e300  # of a score's size
LONGEST_NUMBER = 20  # digits of a label that is a number
_ABSENT = object()


class Reader:
    """Reads the responses of one service; `name` is what a refusal calls it."""

    def __init__(self, service: Service, name: str) -> None:
        self._service, self._name = service, name
        self._places = service.places
        self._is_ambiguous = service.has_other_numbers and service.response.labels_are is None

    def rows(self, response: Any, number: int) -> list[np.ndarray]:
        """Return the scores of each of a request's images: `row` of each of its `answers`."""
        return [self.row(answer) for answer in self.answers(response, number)]

    def answers(self, response: Any, number: int) -> list[Any]:
        """Return the answer to each of a request's images; raise `Refused` if there are more or fewer."""
        path = self._service.response.answers
        answers = [response] if path is None else self._at(response, path, "response.answers")
        if not isinstance(answers, list) or len(answers) != number:
            held = f"{len(answers)} answers" if isinstance(answers, list) else _kind(answers)
            self._refuse("response.answers", f"holds {held}, and {number} images were sent")
        return answers

    def row(self, answer: Any) -> np.ndarray:
        """Return the scores of an answer, float32 (k,): as released, 0 where nothing is.

        Logits become their softmax, a label alone a 1. Raise `Refused` if the answer is not as described.
        """
        service = self._service
        (kind,) = service.response.given
        path = str(getattr(service.response, kind))
        value = self._at(answer, path, f"response.{kind}")
        row = np.zeros(service.classes, dtype=np.float64)
        if kind == "label":
            row[self._place(value)] = 1.0
            return row.astype(np.float32)
        scores = self._listed(value) if kind == "scores" else self._paired(value)
        seen: set[int] = set()
        for place, score in scores:
            if place in seen:
                self._refuse(f"response.{kind}", f"holds class {place} twice")
            seen.add(place)
            row[place] = self._number(score, f"response.{kind}")
        return self._checked(row, seen, f"response.{kind}")

    def _checked(self, row: np.ndarray, seen: set[int], field: str) -> np.ndarray:
        """Return scores as float32, of logits their softmax; refuse what cannot be what was declared."""
        service = self._service
        if service.outputs == "logits":
            if len(seen) != service.classes:
                self._refuse(field, f"holds {len(seen)} logits of {service.classes}")
            powers = np.exp(row - row.max())
            return (powers / powers.sum()).astype(np.float32)
        if row.min() < -SLACK or row.max() > 1 + SLACK or row.sum() > 1 + SUM_SLACK:
            which = f"{row.min():.3g} to {row.max():.3g} with a sum of {row.sum():.3g}"
            rule = f"holds scores of {which}, which are no probabilities"
            self._refuse(field, rule, "describe them as outputs: logits, or correct the path")
        shown = int(np.count_nonzero(row))
        if shown > service.num_released:
            rule = f"holds {shown} scores, and releases={service.num_released}"
            self._refuse(field, rule, "correct releases")
        if service.releases is None and len(seen) != service.classes:
            rule = f"holds {len(seen)} scores of {service.classes}"
            self._refuse(field, rule, "write in releases how many it returns")
        scores = row.clip(0.0, 1.0).astype(np.float32)
        if not scores.any():
            self._refuse(field, "holds no score above 0")
        return scores

    def _listed(self, value: Any) -> Iterator[tuple[int, Any]]:
        """Yield places with scores of a list for all classes, or of an object by label."""
        if isinstance(value, dict):
            yield from ((self._place(label), score) for label, score in value.items())
        elif not isinstance(value, list):
            self._refuse("response.scores", f"is {_kind(value)}, not a list or an object")
        elif len(value) != self._service.classes:
            rule = f"holds {len(value)} scores, and the service has {self._service.classes} classes"
            self._refuse("response.scores", rule)
        else:
            yield from enumerate(value)

    def _paired(self, value: Any) -> Iterator[tuple[int, Any]]:
        """Yield places with scores of a list of pairs."""
        response = self._service.response
        if not isinstance(value, list) or not value:
            self._refuse("response.pairs", f"is {_kind(value)}, not a list of pairs")
        for one in value:
            if isinstance(one, list) and len(one) >= 2:
                yield self._place(one[0]), one[1]
                continue
            label = self._at(one, response.pair_label, "response.pair_label")
            yield self._place(label), self._at(one, response.pair_score, "response.pair_score")

    def _place(self, label: Any) -> int:
        """Return the output of a label: by its name, or a number that is its place."""
        text = _shown(label)
        is_text, are = isinstance(label, str), self._service.response.labels_are
        is_number = text.isdecimal() and len(text) <= LONGEST_NUMBER and isinstance(label, str | int)
        if is_number and self._is_ambiguous:
            self._refuse("response.labels_are", *LABELS_ARE)
        is_place = is_number and (are == "places" or not is_text or not self._places)
        if text in self._places and not (is_number and are == "places"):
            return self._places[text]
        if is_place and are != "names" and int(text) < self._service.classes:
            return int(text)
        return self._refuse("labels", f"has no {shortened(text)!r}, which the service names", "add it there")

    def _number(self, value: Any, field: str) -> float:
        """Return a score; refuse what is no number or more than a float holds."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        number = float(value) if is_number and abs(value) < LARGEST else float("nan")
        if not np.isfinite(number):
            self._refuse(field, f"holds {shortened(_shown(value))!r}, which is no finite number")
        return number

    def _at(self, value: Any, path: str, field: str) -> Any:
        """Return what is at a path; refuse what is not there."""
        for name in path.split(".") if path else ():
            found: Any = _ABSENT
            if isinstance(value, dict):
                found = value.get(name, _ABSENT)
            elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
                found = value[int(name)]
            if found is _ABSENT:
                held = f" with {_members(value)}" if isinstance(value, dict) else ""
                self._refuse(f"{field}={path}", f"finds no {name} in {_kind(value)}{held}")
            value = found
        return value

    def _refuse(self, field: str, rule: str, way_out: str = "correct the description") -> NoReturn:
        raise Refused(f"{self._name} {field}", NO_VALUE, rule, way_out)


def _shown(value: Any) -> str:
    """Return a value as a text; Python writes no integer of more than 4300 digits."""
    is_huge = isinstance(value, int) and value.bit_length() > 1000
    return f"an integer of {value.bit_length()} bits" if is_huge else str(value)


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", int: "a number"}
    return {**kinds, float: "a number"}.get(type(value), "null")


def _members(value: dict[str, Any]) -> str:
    return shortened(", ".join(sorted(value)[:8])) or "nothing"

"""Choice of a user study's pairs: trials of two settings that agree in all else, and images of both."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.config.base import Refused, digest
from orchestrator.report.settings import (
    Axes,
    finished_trials,
    fits,
    in_words,
    merged_axes,
    why_none,
)
from orchestrator.report.stored_images import Images, kept_images, kept_labels
from orchestrator.report.user_study.key import Key, Pair, Side
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.blobs import sha256
from orchestrator.sweep.records import TrialRecord

FIELD = "--compare"
SIDES: tuple[Side, Side] = ("left", "right")


@dataclass(frozen=True, eq=False)
class Question:
    """What a rater sees, (C, S, S) uint8 each, and what the key keeps of it."""

    private: Images
    left: Images
    right: Images
    pair: Pair


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A private image with the reconstructions of both settings, (C, S, S) uint8 each."""

    private: Images
    rebuilt: tuple[Images, Images]
    person: int
    trials: tuple[str, str]
    image: int


def choose(
    records: Sequence[TrialRecord],
    store: Artifacts,
    part: str,
    settings: tuple[Axes, Axes],
    *,
    study: str,
    num_pairs: int,
    seed: int,
) -> tuple[list[Question], Key]:
    """Return at most `num_pairs` questions in the order they are asked, and their key.

    Trials are paired that differ in the settings' axes only; every class has a pair before any has a second.
    The first setting stands left in half of the pairs. Two reconstructions that are the same image are no
    question. Raise `Refused` if the settings have no such images, and `Corrupt` for a damaged file.
    """
    found = list(_candidates(_paired(finished_trials(records), settings), part, store))
    if not found:
        rule = f"keep no {part} images of one and the same private image that differ between them"
        raise Refused(FIELD, _words(settings), rule, "set report.parts to a part that both have")
    generator = np.random.default_rng(int(digest(["user study", seed])[:16], 16))
    chosen = _spread([found[place] for place in generator.permutation(len(found))], num_pairs)
    chosen = [chosen[place] for place in generator.permutation(len(chosen))]
    sides = generator.permutation(np.arange(len(chosen)) % 2)
    questions = [_question(one, SIDES[side]) for one, side in zip(chosen, sides.tolist(), strict=True)]
    words = (in_words(settings[0]), in_words(settings[1]))
    shown = [sha256(image.tobytes()) for one in questions for image in (one.private, one.left, one.right)]
    pairs = tuple(one.pair for one in questions)
    page = digest([study, part, words, seed, shown, [pair.plain for pair in pairs]])[:12]
    return questions, Key(page=page, study=study, part=part, seed=seed, settings=words, pairs=pairs)


def _words(settings: tuple[Axes, Axes]) -> str:
    return " and ".join(f"{{{in_words(one)}}}" for one in settings)


def _paired(
    finished: Sequence[TrialRecord], settings: tuple[Axes, Axes]
) -> list[tuple[TrialRecord, TrialRecord]]:
    """Return the trials of both settings that agree in all other axes; raise `Refused` if there are none."""
    for where in settings:
        if reason := why_none(where, finished):
            raise Refused(FIELD, f"{{{in_words(where)}}}", f"fits nothing: {reason}", "see results.csv")
    named = {axis for where in settings for axis in where}
    first, second = ([one for one in finished if fits(one.axes, where)] for where in settings)
    pairs = [
        (one, other)
        for one in first
        for other in second
        if merged_axes(one.axes, other.axes, named) is not None
    ]
    if not pairs:
        rule = "have no two finished trials that agree in all other axes"
        raise Refused(FIELD, _words(settings), rule, "name the axes in which they differ in both")
    if any(one.key == other.key for one, other in pairs):
        raise Refused(FIELD, _words(settings), "are not two settings: they share a trial", "narrow them")
    return pairs


def _candidates(
    pairs: Sequence[tuple[TrialRecord, TrialRecord]], part: str, store: Artifacts
) -> Iterator[_Candidate]:
    for one, other in pairs:
        kept = [kept_images(record, [part], store) for record in (one, other)]
        if not all(kept):
            continue
        (private, first), (same, second) = (images[part] for images in kept)
        labels = kept_labels(one, part, store)
        for place in range(min(len(private), len(same))):
            is_same = np.array_equal(private[place], same[place])
            if is_same and not np.array_equal(first[place], second[place]):
                rebuilt = (first[place], second[place])
                names = (one.name, other.name)
                yield _Candidate(private[place], rebuilt, int(labels[place]), names, place)


def _spread(candidates: Sequence[_Candidate], number: int) -> list[_Candidate]:
    """Return the first `number` candidates when each class's first comes before any class's second."""
    seen: dict[int, int] = {}
    turns = []
    for one in candidates:
        turns.append(seen.get(one.person, 0))
        seen[one.person] = turns[-1] + 1
    order = sorted(range(len(candidates)), key=lambda place: turns[place])
    return [candidates[place] for place in order[:number]]


def _question(one: _Candidate, first: Side) -> Question:
    left, right = one.rebuilt if first == "left" else one.rebuilt[::-1]
    pair = Pair(person=one.person, first=first, trials=one.trials, image=one.image)
    return Question(one.private, left, right, pair)

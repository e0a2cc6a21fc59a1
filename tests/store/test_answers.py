"""Answers that were paid for: numbered before they are asked, kept once, never above a budget."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.store.answers import Answers, Contended
from orchestrator.store.blobs import Blobs
from orchestrator.store.directory import DirectoryBlobs

URL = "https://host/classify"


def answers(blobs: Blobs, service: str = "digest", url: str = URL) -> Answers:
    found = Answers(blobs, url, service)
    found.refresh()
    return found


def test_answers_come_back_as_they_were_kept(blobs: Blobs) -> None:
    one = answers(blobs)
    assert (one.num_sent, one.stored) == (0, {})
    assert one.reserve(2) == 1
    content = {"any": [1, 0.1, None, "\u00fc"]}
    one.keep(1, ["image", "other"], content)
    other = answers(blobs)
    assert (other.num_sent, other.stored) == (1, one.stored)
    assert {image: place for image, (_, place) in other.stored.items()} == {"image": 0, "other": 1}
    response, _ = other.stored["other"]
    assert (response.content, response.number) == (content, 2)
    assert blobs.names("services/") == [response.name]


def test_what_others_kept_meanwhile_is_read(blobs: Blobs) -> None:
    one, other = answers(blobs), answers(blobs)
    assert one.reserve(9) == 1
    other.refresh()
    assert (other.num_sent, other.stored) == (1, {})  # on its way
    one.keep(1, ["image"], 7)
    other.refresh()
    assert other.stored.keys() == {"image"}


def test_one_budget_counts_every_service_at_an_address(blobs: Blobs) -> None:
    one, other, elsewhere = answers(blobs), answers(blobs, "another"), answers(blobs, url=f"{URL}/2")
    assert one.reserve(1) == 1
    one.keep(1, ["image"], 7)
    other.refresh()
    assert other.reserve(1) is None
    assert other.stored == {}  # these are another's answers
    assert elsewhere.reserve(1) == 1


def test_a_failure_counts_and_answers_nothing(blobs: Blobs) -> None:
    one = answers(blobs)
    assert one.reserve(2) == 1
    one.note_failure(1, "status 503")
    other = answers(blobs)
    assert (other.num_sent, other.stored) == (1, {})
    assert other.reserve(2) == 2
    assert other.reserve(2) is None


def test_no_number_is_given_twice_or_above_the_budget(blobs: Blobs) -> None:
    """Each of eight has seen nothing of the others: a lease that was lost."""
    every = [Answers(blobs, URL, "digest") for _ in range(8)]

    def reserved(one: Answers) -> list[int]:
        numbers: list[int] = []
        while True:
            try:
                number = one.reserve(50)
            except Contended:
                continue
            if number is None:
                return numbers
            numbers.append(number)

    with ThreadPoolExecutor(8) as threads:
        given = list(threads.map(reserved, every))
    assert sorted(number for own in given for number in own) == list(range(1, 51))


def test_a_taken_number_says_that_another_sends(blobs: Blobs) -> None:
    one, other = answers(blobs), answers(blobs)
    assert one.reserve(9) == 1
    with pytest.raises(Contended):
        other.reserve(9)


def test_a_damaged_object_answers_nothing_and_still_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blobs = DirectoryBlobs(tmp_path)
    one = answers(blobs)
    for number in (1, 2):
        assert one.reserve(9) == number
        one.keep(number, [f"image{number}"], number)
    (name, _) = blobs.names("services/")
    data = blobs.get(name) or b""
    blobs.put(name, data.replace(b"image1", b"image9"))
    other = answers(blobs)
    assert (other.num_sent, other.stored.keys()) == (2, {"image2"})
    assert "event=answers_damaged" in caplog.text

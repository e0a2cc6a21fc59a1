"""Asking: once for each image, within the budget, sent again as described, stored as it comes."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from orchestrator.config.base import Refused, digest
from orchestrator.datasets.services import described
from orchestrator.models.services import ServiceNetwork
from orchestrator.models.services import asker as module
from orchestrator.models.services.asker import Asker, Stopped
from orchestrator.models.services.client import Unanswered
from orchestrator.store.answers import Answers
from orchestrator.store.blob_leases import BlobLeases
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.store.leases import LocalLeases
from orchestrator.threat import truncate
from tests.services.server import WORDS, Server, description, serving

KEY = "S3cr3t"


class Rows(nn.Module):
    """Images (N, 1, 32, 32) -> logits (N, 10) of their first ten pixels."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :10]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_KEY", KEY)
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)


def images(number: int, start: int = 0) -> torch.Tensor:
    """Return images (N, 1, 32, 32) uint8, each another."""
    made = torch.zeros(number, 1, 32, 32, dtype=torch.uint8)
    made[:, 0, 0, 0] = torch.arange(start, start + number, dtype=torch.uint8)
    return made


def asker(
    server: Server, folder: Path, *, batch: int = 1, changes: dict[str, Any] | None = None, **asking: Any
) -> Asker:
    text = {**description(server.url, **asking), "images_per_request": batch, **(changes or {})}
    service, how = described(yaml.safe_dump(text), "service.yaml")
    answers = Answers(DirectoryBlobs(folder), service.address, digest(service.asked))
    leases = BlobLeases(DirectoryBlobs(folder), f"{answers.folder}/leases")
    return Asker("target.service=ex", service, how, answers, leases)


def test_each_image_is_asked_for_once(tmp_path: Path) -> None:
    with serving(Server(Rows(), key=KEY, releases=2)) as server:
        network = ServiceNetwork(asker(server, tmp_path, batch=4))
        twice = torch.cat([images(10), images(5)])
        rows = network(twice / 255)
        assert server.counts.requests == 3
        assert rows.shape == (15, 10)
        assert torch.equal(rows[:5], rows[10:])
        assert torch.equal(rows, truncate(Rows()(twice / 255).softmax(1), 2))
        other = ServiceNetwork(asker(server, tmp_path))
        assert torch.equal(other(images(10)), rows[:10])
        assert server.counts.requests == 3


def test_errors_and_limits_are_waited_for_and_counted(tmp_path: Path) -> None:
    with serving(Server(Rows(), key=KEY, error_every=7, per_second=20)) as server:
        one = asker(server, tmp_path, parallel=4, retries=50)
        ServiceNetwork(one).ask_ahead(images(30))
        assert server.counts.statuses[200] == 30
        assert server.counts.statuses[503] > 0
        assert server.counts.statuses[429] > 0
        assert max(server.counts.answered.values()) == 1
        assert one.answers.num_sent == server.counts.requests


def test_a_rate_is_kept(tmp_path: Path) -> None:
    with serving(Server(Rows(), key=KEY, per_second=40)) as server:
        ServiceNetwork(asker(server, tmp_path, requests_per_second=36)).ask_ahead(images(45))
        assert server.counts.statuses == {200: 45}


def test_too_small_a_budget_is_one_line_before_any_request(tmp_path: Path) -> None:
    with serving(Server(Rows(), key=KEY)) as server:
        ServiceNetwork(asker(server, tmp_path, budget=6)).ask_ahead(images(4))
        with pytest.raises(Refused) as caught:
            ServiceNetwork(asker(server, tmp_path, budget=6)).ask_ahead(images(7))
        assert server.counts.requests == 4
        assert str(caught.value) == (
            "target.service=ex needs 3 requests for 3 images without an answer, and 2 of asking.budget=6 are "
            "left; raise asking.budget in the description and stage it again, or attack with fewer images."
        )


def test_retries_do_not_exceed_the_budget(tmp_path: Path) -> None:
    with serving(Server(Rows(), key=KEY, error_every=2)) as server:
        with pytest.raises(Refused, match=r"^target\.service=ex has used up asking\.budget=5 by requests"):
            ServiceNetwork(asker(server, tmp_path, budget=5)).ask_ahead(images(4))
        assert server.counts.requests == 5
        ServiceNetwork(asker(server, tmp_path, budget=8)).ask_ahead(images(4))
        assert max(server.counts.answered.values()) == 1


def test_a_service_that_stays_away_is_one_line(tmp_path: Path) -> None:
    with (
        serving(Server(Rows(), key=KEY, error_every=1)) as server,
        pytest.raises(Refused, match=r"/classify does not answer \(3 requests, the last: status 503\); "),
    ):
        ServiceNetwork(asker(server, tmp_path, retries=2)).ask_ahead(images(1))


def test_a_wrong_key_ends_it_and_is_not_shown(tmp_path: Path) -> None:
    with serving(Server(Rows(), key="other")) as server:
        with pytest.raises(Refused, match=r"refuses the request \(status 401: ") as caught:
            ServiceNetwork(asker(server, tmp_path)).ask_ahead(images(3))
        assert server.counts.requests == 1
    assert KEY not in str(caught.value)
    for file in tmp_path.rglob("*.json"):
        assert KEY not in file.read_text()


def test_a_process_that_has_to_end_keeps_what_was_answered(tmp_path: Path) -> None:
    with serving(Server(Rows(), key=KEY)) as server:
        one = asker(server, tmp_path)
        one.must_stop = lambda: server.counts.requests >= 3
        with pytest.raises(Stopped):
            ServiceNetwork(one).ask_ahead(images(9))
        assert server.counts.requests == 3
        ServiceNetwork(asker(server, tmp_path)).ask_ahead(images(9))
        assert server.counts.requests == 9


def test_what_was_asked_ahead_is_asked_once_in_any_layout(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    small = torch.randint(0, 256, (20, 1, 20, 20), generator=generator, dtype=torch.uint8)
    with serving(Server(Rows(), key=KEY)) as server:
        ServiceNetwork(asker(server, tmp_path, batch=8)).ask_ahead(small)
        network = ServiceNetwork(asker(server, tmp_path, batch=8))
        network((small * torch.tensor(1 / 255)).contiguous(memory_format=torch.channels_last))
        assert server.counts.requests == 3


def test_one_answer_that_is_unreadable_costs_no_other(tmp_path: Path) -> None:
    """The description lacks what the service calls one class: it is corrected, and nothing is asked again."""
    made = images(4)
    made[2, 0, 0, 3] = 255  # its best class is the fourth
    lacking = {"labels": {word: str(digit) for digit, word in enumerate(WORDS) if word != "three"}}
    with serving(Server(Rows(), key=KEY, releases=2)) as server:
        for _ in range(2):
            with pytest.raises(
                Refused,
                match=r"labels has no 'three', which the service names; add it there, or remove services/"
                r"[0-9a-f]{32}/requests/00000001\.json in the store to ask again\.$",
            ):
                ServiceNetwork(asker(server, tmp_path, batch=4, changes=lacking))(made / 255)
        assert server.counts.requests == 1
        rows = ServiceNetwork(asker(server, tmp_path, batch=4))(made / 255)
        assert rows[2].argmax() == 3
        assert server.counts.requests == 1


def test_how_answers_are_read_is_corrected_without_a_request(tmp_path: Path) -> None:
    with serving(Server(Rows(), key=KEY, releases=2)) as server:
        before = ServiceNetwork(asker(server, tmp_path))(images(5) / 255)
        names: dict[str, Any] = {"names": [str(digit) for digit in reversed(range(10))]}
        names |= {"response": {"answers": "predictions", "pairs": "top", "labels_are": "names"}}
        after = ServiceNetwork(asker(server, tmp_path, batch=3, changes=names))(images(5) / 255)
        assert torch.equal(after, before.flip(1))
        assert server.counts.requests == 5


def test_a_lost_lease_waits_for_who_has_it(tmp_path: Path) -> None:
    """Both think that they have the lease: one meets the number of the other, stops and reads what it got."""
    with serving(Server(Rows(), key=KEY)) as server:
        one, other = asker(server, tmp_path), asker(server, tmp_path)
        one.leases, other.leases = LocalLeases(), BlobLeases(DirectoryBlobs(tmp_path), "leases")
        taken = one.answers.reserve

        def late(budget: int) -> int | None:
            if one.answers.num_sent == 3:  # another process goes on from here
                one.leases = other.leases
                ServiceNetwork(other).ask_ahead(images(10))
            return taken(budget)

        one.answers.reserve = late  # type: ignore[method-assign]
        ServiceNetwork(one).ask_ahead(images(10))
        assert server.counts.requests == 10
        assert max(server.counts.answered.values()) == 1
        assert one.answers.stored.keys() == other.answers.stored.keys()


def test_the_service_makes_all_threads_wait(tmp_path: Path) -> None:
    one_wait = Unanswered("status 429", 0.5)
    with serving(Server(Rows(), key=KEY)) as server:
        one = asker(server, tmp_path)
        ServiceNetwork(one).ask_ahead(images(1))
        assert one._seconds_before(0, one_wait) == 0.5
        begin = time.monotonic()
        one._wait_for_turn()
        assert time.monotonic() - begin > 0.4


def test_no_images_are_no_request(tmp_path: Path) -> None:
    with serving(Server(Rows(), key=KEY)) as server:
        assert ServiceNetwork(asker(server, tmp_path))(images(0).float()).shape == (0, 10)
        assert server.counts.requests == 0

"""A search over many rows: in order, in chunks, resumed and shared by two ranks."""

import contextlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from orchestrator.attacks import sharded_search as sharing
from orchestrator.attacks.pixel_search import SearchResult
from orchestrator.attacks.sharded_search import search_all
from orchestrator.training.seeds import drawing_from
from orchestrator.training.world import Cancelled, World
from tests.ranks import run_two
from tests.training.test_loop import Memory, Shared


def rows(number: int) -> Tensor:
    """Return rows that are all different, (number, 3)."""
    return torch.arange(3.0 * number).view(number, 3) / (3 * number)


class Counting:
    """Finds for each row an image of its mean, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Tensor] = []

    def __call__(self, scores: Tensor) -> SearchResult:
        self.asked.append(scores)
        images = scores.mean(dim=1)[:, None, None, None].expand(-1, 1, 2, 2).contiguous()
        return SearchResult(images, (scores[:, 0] * 100).long(), scores.sum(dim=1))


class Drawing:
    """Finds for each row an image of noise, as from a target model that draws noise for each prediction."""

    def __call__(self, scores: Tensor) -> SearchResult:
        images = torch.randn(len(scores), 1, 2, 2)
        return SearchResult(images, torch.ones(len(scores), dtype=torch.int64), scores.sum(dim=1))


def check(found: SearchResult, scores: Tensor) -> None:
    """Compare with what one search of all rows finds."""
    expected = Counting()(scores)
    assert torch.equal(found.images, expected.images)
    assert torch.equal(found.steps, expected.steps)
    assert torch.equal(found.costs, expected.costs)


def stopping_at(images: int) -> Callable[[Mapping[str, float]], bool]:
    """Ask to stop once so many images are done."""
    return lambda metrics: metrics["images"] < images


@pytest.fixture
def chunks_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make chunks small."""
    monkeypatch.setattr(sharing, "CHUNK", 2)


@pytest.mark.usefixtures("chunks_of_two")
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_every_row_is_searched_once_and_in_order(number: int) -> None:
    search, reported = Counting(), []

    def report(metrics: Mapping[str, float]) -> bool:
        reported.append((metrics["images"], metrics["of"]))
        return True

    check(search_all(search, rows(number), World(report=report)), rows(number))
    assert torch.equal(torch.cat(search.asked), rows(number))
    assert [len(asked) for asked in search.asked] == [2] * (number // 2) + [1] * (number % 2)
    assert reported == [(min(end, number), number) for end in range(2, number + 2, 2)]


@pytest.mark.usefixtures("chunks_of_two")
@pytest.mark.parametrize("done", [2, 4])
def test_a_resumed_search_does_not_search_again(done: int) -> None:
    memory, first, rest = Memory(), Counting(), Counting()

    def killed(metrics: Mapping[str, float]) -> bool:
        if metrics["images"] > done:
            raise KeyboardInterrupt  # after the checkpoint of `done`, before the next one
        return True

    with pytest.raises(KeyboardInterrupt):
        search_all(first, rows(5), World(checkpoint=memory, checkpoint_seconds=0.0, report=killed))
    assert memory.saves == done // 2
    check(search_all(rest, rows(5), World(checkpoint=memory)), rows(5))
    assert torch.equal(torch.cat(rest.asked), rows(5)[done:])


@pytest.mark.usefixtures("chunks_of_two")
def test_interrupted_again_and_again_it_finds_the_same() -> None:
    memory, search = Memory(), Counting()
    for images in (2, 4):
        world = World(checkpoint=memory, checkpoint_seconds=0.0, report=stopping_at(images))
        with pytest.raises(Cancelled, match=f"stopped after {images} of 5 images"):
            search_all(search, rows(5), world)
    check(search_all(search, rows(5), World(checkpoint=memory)), rows(5))
    assert torch.equal(torch.cat(search.asked), rows(5))


@pytest.mark.usefixtures("chunks_of_two")
@pytest.mark.parametrize("done", [2, 4])
def test_a_resumed_search_draws_what_would_have_followed(done: int) -> None:
    with drawing_from(1):
        whole = search_all(Drawing(), rows(6), World())
    memory = Memory()
    world = World(checkpoint=memory, checkpoint_seconds=0.0, report=stopping_at(done))
    with drawing_from(1), pytest.raises(Cancelled):
        search_all(Drawing(), rows(6), world)
    with drawing_from(2):  # which must not matter
        resumed = search_all(Drawing(), rows(6), World(checkpoint=memory))
    assert torch.equal(resumed.images, whole.images)


@pytest.mark.usefixtures("chunks_of_two")
def test_a_search_that_was_finished_is_not_repeated() -> None:
    memory, search = Memory(), Counting()
    search_all(Counting(), rows(4), World(checkpoint=memory, checkpoint_seconds=0.0))
    check(search_all(search, rows(4), World(checkpoint=memory)), rows(4))
    assert search.asked == []


@pytest.mark.usefixtures("chunks_of_two")
def test_a_damaged_checkpoint_is_ignored() -> None:
    memory, search = Memory(), Counting()
    memory.data = b"not a checkpoint"
    check(search_all(search, rows(3), World(checkpoint=memory)), rows(3))
    assert len(torch.cat(search.asked)) == 3


@pytest.mark.usefixtures("chunks_of_two")
def test_checkpoints_are_written_when_their_time_has_come() -> None:
    seldom = Memory()
    search_all(Counting(), rows(5), World(checkpoint=seldom, checkpoint_seconds=1000.0))
    assert seldom.saves == 0


def as_rank(rank: int, size: int, port: int, folder: str) -> None:
    """Search as one of several processes; leave what was found and what this rank was asked."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size
    )
    sharing.CHUNK = 2
    search = Counting()
    found = search_all(search, rows(3), World(rank=rank, size=size))
    stopped = ""
    try:  # only rank 0's wish counts
        search_all(Counting(), rows(3), World(rank=rank, size=size, report=stopping_at(2)))
    except Cancelled as error:
        stopped = str(error)
    torch.manual_seed(rank)  # ranks need not draw alike
    whole = search_all(Drawing(), rows(6), World(rank=rank, size=size))
    shared = Shared(Path(folder) / "checkpoint")
    torch.manual_seed(rank)
    world = World(rank, size, checkpoint=shared, checkpoint_seconds=0.0, report=stopping_at(4))
    with contextlib.suppress(Cancelled):
        search_all(Drawing(), rows(6), world)
    torch.manual_seed(9)
    resumed = search_all(Drawing(), rows(6), World(rank, size, checkpoint=shared))
    drawn = (whole.images, resumed.images)
    torch.save((vars(found), search.asked, stopped, drawn), f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_share_the_rows_have_all_and_resume(tmp_path: Path) -> None:
    """The last of two chunks has one row, so the second rank has none of it."""
    run_two(as_rank, tmp_path)
    shares = ([0, 2], [1, 2])  # a rank without a row searches one, which does not count
    for rank, share in enumerate(shares):
        found, asked, stopped, (whole, resumed) = torch.load(
            io.BytesIO((tmp_path / f"rank{rank}.pt").read_bytes())
        )
        check(SearchResult(**found), rows(3))
        assert torch.equal(torch.cat(asked), rows(3)[share])
        assert stopped == "stopped after 2 of 3 images"
        assert torch.equal(resumed, whole)

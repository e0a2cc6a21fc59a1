"""A search over many rows: in order, in chunks, resumed and shared by two ranks."""

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from orchestrator.attacks import sharded_search as sharing
from orchestrator.attacks.pixel_search import SearchResult
from orchestrator.attacks.row_search import AtOnce, State, search_to_the_end
from orchestrator.attacks.sharded_search import search_all
from orchestrator.training.checkpoint import save_state
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
        steps = (scores[:, 0] * 100).long()
        return SearchResult(images, steps, scores.sum(dim=1), steps + 1)


class Drawing:
    """Finds for each row an image of noise, as from a target model that draws noise for each prediction."""

    def __call__(self, scores: Tensor) -> SearchResult:
        images = torch.randn(len(scores), 1, 2, 2)
        ones = torch.ones(len(scores), dtype=torch.int64)
        return SearchResult(images, ones, scores.sum(dim=1), ones)


class Adding:
    """Adds the row's sum to an image in each of five segments."""

    def advance(self, rows: Tensor, state: State) -> State:
        images, steps = (state["images"], state["steps"]) if state else begun(len(rows))
        images, steps = images + self.more(rows), steps + 1
        return {"images": images, "steps": steps, "finished": steps >= 5}

    def more(self, rows: Tensor) -> Tensor:
        return rows.sum(dim=1)[:, None, None, None]

    def result(self, rows: Tensor, state: State) -> SearchResult:
        return SearchResult(state["images"], state["steps"], rows.sum(dim=1), state["steps"])


class AddingNoise(Adding):
    """As from a target model that draws noise for each prediction."""

    def more(self, rows: Tensor) -> Tensor:
        return super().more(rows) + torch.randn(len(rows), 1, 2, 2)


def begun(number: int) -> tuple[Tensor, Tensor]:
    """Return images and steps before the first segment."""
    return torch.zeros(number, 1, 2, 2), torch.zeros(number, dtype=torch.int64)


def check(found: SearchResult, scores: Tensor) -> None:
    """Compare with what one search of all rows finds."""
    expected = Counting()(scores)
    assert torch.equal(found.images, expected.images)
    assert torch.equal(found.steps, expected.steps)
    assert torch.equal(found.costs, expected.costs)
    assert torch.equal(found.queries, expected.queries)


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

    check(search_all(AtOnce(search), rows(number), World(report=report)), rows(number))
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
        search_all(AtOnce(first), rows(5), World(checkpoint=memory, checkpoint_seconds=0.0, report=killed))
    assert memory.saves == done // 2
    check(search_all(AtOnce(rest), rows(5), World(checkpoint=memory)), rows(5))
    assert torch.equal(torch.cat(rest.asked), rows(5)[done:])


@pytest.mark.usefixtures("chunks_of_two")
def test_interrupted_again_and_again_it_finds_the_same() -> None:
    memory, search = Memory(), Counting()
    for images in (2, 4):
        world = World(checkpoint=memory, checkpoint_seconds=0.0, report=stopping_at(images))
        with pytest.raises(Cancelled, match=f"stopped after {images} of 5 images"):
            search_all(AtOnce(search), rows(5), world)
    check(search_all(AtOnce(search), rows(5), World(checkpoint=memory)), rows(5))
    assert torch.equal(torch.cat(search.asked), rows(5))


@pytest.mark.usefixtures("chunks_of_two")
@pytest.mark.parametrize("done", [2, 4])
def test_a_resumed_search_draws_what_would_have_followed(done: int) -> None:
    with drawing_from(1):
        whole = search_all(AtOnce(Drawing()), rows(6), World())
    memory = Memory()
    world = World(checkpoint=memory, checkpoint_seconds=0.0, report=stopping_at(done))
    with drawing_from(1), pytest.raises(Cancelled):
        search_all(AtOnce(Drawing()), rows(6), world)
    with drawing_from(2):  # which must not matter
        resumed = search_all(AtOnce(Drawing()), rows(6), World(checkpoint=memory))
    assert torch.equal(resumed.images, whole.images)


@pytest.mark.usefixtures("chunks_of_two")
@pytest.mark.parametrize("segments", [1, 3, 7])
def test_a_search_stopped_inside_its_rows_goes_on_there(segments: int) -> None:
    """Three chunks of five segments; it stops again and again, each time `segments` later."""
    with drawing_from(1):
        whole = search_all(AddingNoise(), rows(5), World())
    assert whole.steps.tolist() == [5] * 5
    memory, stops = Memory(), 0
    with drawing_from(1):
        while True:
            counted = iter([True] * (segments - 1))
            world = World(checkpoint=memory, checkpoint_seconds=0.0, report=partial(_goes_on, counted))
            try:
                resumed = search_all(AddingNoise(), rows(5), world)
                break
            except Cancelled:
                stops += 1
                torch.manual_seed(stops)  # which must not matter
    assert stops == 15 // segments
    assert torch.equal(resumed.images, whole.images)


@pytest.mark.usefixtures("chunks_of_two")
def test_a_search_that_was_finished_is_not_repeated() -> None:
    memory, search = Memory(), Counting()
    search_all(AtOnce(Counting()), rows(4), World(checkpoint=memory, checkpoint_seconds=0.0))
    check(search_all(AtOnce(search), rows(4), World(checkpoint=memory)), rows(4))
    assert search.asked == []


@pytest.mark.usefixtures("chunks_of_two")
def test_a_damaged_checkpoint_is_ignored() -> None:
    memory, search = Memory(), Counting()
    memory.data = b"not a checkpoint"
    check(search_all(AtOnce(search), rows(3), World(checkpoint=memory)), rows(3))
    assert len(torch.cat(search.asked)) == 3


@pytest.mark.usefixtures("chunks_of_two")
def test_a_checkpoint_of_images_with_other_properties_starts_over() -> None:
    memory, search = Memory(), Counting()
    found = vars(Counting()(rows(2)))
    del found["queries"]
    save_state(memory, found, {})
    check(search_all(AtOnce(search), rows(3), World(checkpoint=memory)), rows(3))
    assert len(torch.cat(search.asked)) == 3


@pytest.mark.usefixtures("chunks_of_two")
def test_checkpoints_are_written_when_their_time_has_come() -> None:
    seldom = Memory()
    search_all(AtOnce(Counting()), rows(5), World(checkpoint=seldom, checkpoint_seconds=1000.0))
    assert seldom.saves == 0


def _goes_on(counted: Iterator[bool], metrics: Mapping[str, float]) -> bool:
    return next(counted, False)


def as_rank(rank: int, size: int, folder: str) -> None:
    """Search as one of several processes; leave what was found and what this rank was asked."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size
    )
    sharing.CHUNK = 2
    search = Counting()
    found = search_all(AtOnce(search), rows(3), World(rank=rank, size=size))
    stopped = ""
    try:  # only rank 0's wish counts
        search_all(AtOnce(Counting()), rows(3), World(rank=rank, size=size, report=stopping_at(2)))
    except Cancelled as error:
        stopped = str(error)
    torch.manual_seed(rank)  # ranks need not draw alike
    whole = search_all(AtOnce(Drawing()), rows(6), World(rank=rank, size=size))
    shared = Shared(Path(folder) / "checkpoint")
    torch.manual_seed(rank)
    world = World(rank, size, checkpoint=shared, checkpoint_seconds=0.0, report=stopping_at(4))
    with contextlib.suppress(Cancelled):
        search_all(AtOnce(Drawing()), rows(6), world)
    torch.manual_seed(9)
    resumed = search_all(AtOnce(Drawing()), rows(6), World(rank, size, checkpoint=shared))
    drawn = (whole.images, resumed.images)
    memory = Shared(Path(folder) / "segments")
    for _ in range(3):  # inside the first chunk, at its end, inside the second
        torch.manual_seed(rank)
        counted = iter([True, True, True])
        world = World(
            rank,
            size,
            checkpoint=memory,
            checkpoint_seconds=0.0,
            report=partial(_goes_on, counted),
        )
        with contextlib.suppress(Cancelled):
            search_all(Adding(), rows(3), world)
    added = search_all(Adding(), rows(3), World(rank, size, checkpoint=memory))
    torch.save((vars(found), search.asked, stopped, drawn, vars(added)), f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_share_the_rows_have_all_and_resume(tmp_path: Path) -> None:
    """The last of two chunks has one row, so the second rank has none of it."""
    run_two(as_rank, tmp_path)
    shares = ([0, 2], [1, 2])  # a rank without a row searches one, which does not count
    for rank, share in enumerate(shares):
        found, asked, stopped, (whole, resumed), added = torch.load(
            io.BytesIO((tmp_path / f"rank{rank}.pt").read_bytes())
        )
        check(SearchResult(**found), rows(3))
        assert torch.equal(torch.cat(asked), rows(3)[share])
        assert stopped == "stopped after 2 of 3 images"
        assert torch.equal(resumed, whole)
        alone = search_to_the_end(Adding(), rows(3))
        assert all(torch.equal(added[name], tensor) for name, tensor in vars(alone).items())

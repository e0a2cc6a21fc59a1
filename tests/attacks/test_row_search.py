"""Searches in segments: until every row is finished, and states that are split and joined."""

import torch
from torch import Tensor

from orchestrator.attacks.pixel_search import SearchResult
from orchestrator.attacks.row_search import (
    AtOnce,
    State,
    joined_states,
    repeated,
    search_to_the_end,
    split_state,
)


def painted(rows: Tensor, steps: Tensor) -> SearchResult:
    """Return an image of the row's first number."""
    return SearchResult(rows[:, :1, None, None], steps, rows[:, 0], steps)


class Counting:
    """Needs as many segments for a row as its first number says."""

    def __init__(self) -> None:
        self.segments = 0

    def advance(self, rows: Tensor, state: State) -> State:
        self.segments += 1
        steps = state["steps"] if state else torch.zeros(len(rows), dtype=torch.int64)
        steps = torch.minimum(steps + 1, rows[:, 0].long())
        return {"steps": steps, "finished": steps >= rows[:, 0]}

    def result(self, rows: Tensor, state: State) -> SearchResult:
        return painted(rows, state["steps"])


def test_the_slowest_row_ends_a_search() -> None:
    search = Counting()
    found = search_to_the_end(search, torch.tensor([[1.0], [3.0], [2.0]]))
    assert search.segments == 3
    assert found.steps.tolist() == [1, 3, 2]


def test_a_function_is_called_once() -> None:
    calls = []

    def function(rows: Tensor) -> SearchResult:
        calls.append(len(rows))
        return painted(rows, rows[:, 0].long())

    search, rows = AtOnce(function), torch.tensor([[4.0], [5.0]])
    state = search.advance(rows, {})
    assert search.advance(rows, state) is state
    assert state["finished"].tolist() == [True, True]
    assert search.result(rows, state).steps.tolist() == [4, 5]
    assert calls == [2]


def test_a_state_is_split_by_rows_and_joined() -> None:
    state = {"z": torch.rand(5, 2), "steps": torch.arange(5)}
    parts = split_state(state, [2, 3])
    assert [len(part["z"]) for part in parts] == [2, 3]
    assert parts[1]["steps"].tolist() == [2, 3, 4]
    assert all(torch.equal(joined_states(parts)[name], state[name]) for name in state)
    assert split_state({}, [2, 3]) == [{}, {}]


def test_rows_that_are_finished_take_no_further_step() -> None:
    seen = []

    def step(classes: Tensor, state: State) -> State:
        seen.append(classes.tolist())
        left = state["left"] - 1
        return {"left": left, "finished": left == 0}

    state = {"left": torch.tensor([1, 3, 0]), "finished": torch.tensor([False, False, True])}
    found = repeated(step, torch.tensor([7, 8, 9]), state, 4)
    assert seen == [[7, 8], [8], [8]]
    assert found["left"].tolist() == [0, 0, 0]
    assert state["left"].tolist() == [1, 3, 0]

"""Row search: a search of an image for each row of scores that goes on in segments, each row for itself.

All that a row needs to go on is in its state, so that an unfinished search is saved between two segments and
other workers may share its rows when it goes on.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from orchestrator.attacks.pixel_search import SearchResult

State = Mapping[str, Tensor]
"""Name -> tensor (n, ...) of each row's state; `finished`, bool (n,), is one of them. Empty before the
first segment."""


class Search(Protocol):
    """A search of rows of scores (n, k), n >= 1."""

    def advance(self, rows: Tensor, state: State) -> State:
        """Search a segment further; rows that are finished stay as they are."""

    def result(self, rows: Tensor, state: State) -> SearchResult:
        """Return the images of rows that are finished."""


class DrawnSearch(Search, Protocol):
    """A search of something for each row that several images come from."""

    @property
    def chunk(self) -> int:
        """How many rows all workers together hold the state of with ease."""

    def draws(self, rows: Tensor, state: State, number: int) -> list[SearchResult]:
        """Return a number of images of each row of scores (n, k) that is finished, the best first where they
        are ranked. Queries of the search count with the first."""


class AtOnce:
    """A search without segments, of a function from rows (n, k) to their result."""

    def __init__(self, function: Callable[[Tensor], SearchResult]) -> None:
        self._function = function

    def advance(self, rows: Tensor, state: State) -> State:
        """Search all rows to the end."""
        if state:
            return state
        result = self._function(rows)
        return {**vars(result), "finished": torch.ones(len(rows), dtype=torch.bool)}

    def result(self, rows: Tensor, state: State) -> SearchResult:
        """Return what `advance` has found, images (n, C, S, S)."""
        return SearchResult(**{name: tensor for name, tensor in state.items() if name != "finished"})


def search_to_the_end(search: Search, rows: Tensor) -> SearchResult:
    """Search rows of scores (n, k) without pause; return an image (C, S, S) for each."""
    state: State = {}
    while not state or not state["finished"].all():
        state = search.advance(rows, state)
    return search.result(rows, state)


def repeated(step: Callable[[Tensor, State], State], classes: Tensor, state: State, times: int) -> State:
    """Return the state of rows of classes (n,) after a number of steps of those that are not finished; `step`
    is given the classes and the state of these alone."""
    changed = {name: tensor.clone() for name, tensor in state.items()}
    for _ in range(times):
        on = (~changed["finished"]).nonzero()[:, 0]
        if len(on):
            stepped = step(classes[on], {name: tensor[on] for name, tensor in changed.items()})
            for name, tensor in stepped.items():
                changed[name][on] = tensor
    return changed


def advanced(
    step: Callable[[State, int], State], state: State, device: torch.device, *, segment: int, last: int
) -> State:
    """Return the state, on the CPU, of rows that began together after up to `segment` further steps, `last`
    in all; `step` is given the state on the device and the number of the step, counted from 1."""
    placed: State = {name: tensor.to(device) for name, tensor in state.items()}
    done = int(state["steps"][0])
    for number in range(done + 1, min(done + segment, last) + 1):
        placed = step(placed, number)
    placed = {**placed, "finished": placed["steps"] >= last}
    return {name: tensor.cpu() for name, tensor in placed.items()}


def split_state(state: State, sizes: Sequence[int]) -> list[State]:
    """Split a state (n, ...) into those of consecutive rows, of which `sizes` are the numbers; the state
    before the first segment is empty for all of them."""
    parts = {name: tensor.split(list(sizes)) for name, tensor in state.items()}
    return [{name: tensors[place] for name, tensors in parts.items()} for place in range(len(sizes))]


def joined_states(parts: Sequence[State]) -> State:
    """Join the states (n, ...) of consecutive rows, one or more."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

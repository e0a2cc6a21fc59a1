"""Sharded search: a search over many predictions, shared by the workers, with checkpoints."""

import time
from dataclasses import fields

from torch import Tensor

from orchestrator.attacks.pixel_search import SearchResult, joined
from orchestrator.attacks.row_search import Search, State
from orchestrator.training.checkpoint import load_state, save_state
from orchestrator.training.world import CANCEL, CONTINUE, PREEMPT, SAVE, Cancelled, Preempted, World

CHUNK = 256  # rows that are searched together by all workers
GENERATOR = "generator."  # prefix of the states of random generators in a checkpoint: F may draw noise
STATE = "state."  # prefix of the state of the chunk that is not finished


def search_all(
    search: Search, scores: Tensor, world: World, largest_chunk: int | None = None
) -> SearchResult:
    """Search an image for every row of scores (N, k), N >= 1, each worker its share of each chunk, which has
    at most `largest_chunk` rows, or one for each worker.

    Return all of them in order, on every rank. Between two segments the images, the state of unfinished rows
    and random generators are saved, so that a resumed search goes on with the draws that would have followed.
    Raise `Cancelled` if a report cancels, `Preempted` if the process has to end.
    """
    found, state = _resumed(world)
    last_save, size = time.monotonic(), max(world.size, min(CHUNK, largest_chunk or CHUNK))
    while (done := sum(len(part.images) for part in found)) < len(scores):
        chunk = scores[done : done + size]
        rows = chunk.tensor_split(world.size)[world.rank]
        num_rows = len(rows)
        # A rank without a row searches one all the same, since every rank must take part in the gathering.
        rows = rows if num_rows else chunk[:1]
        state = search.advance(rows, state)
        if world.gather(state["finished"][:num_rows]).all():
            found.append(_gathered(search.result(rows, state), num_rows, world))
            done, state = done + len(chunk), {}
        verdict, is_due = CONTINUE, False
        if world.rank == 0:
            goes_on = world.report({"images": done, "of": len(scores)})
            verdict = PREEMPT if world.is_preempted() else CONTINUE if goes_on else CANCEL
            is_due = time.monotonic() - last_save >= world.checkpoint_seconds or verdict == PREEMPT
        if world.agree(SAVE if is_due else CONTINUE) == SAVE:
            _save(found, {name: world.gather(tensor[:num_rows]) for name, tensor in state.items()}, world)
            last_save = time.monotonic()
        verdict = world.agree(verdict)  # asked after the save, so that no rank is gone before it
        if verdict == CANCEL:
            raise Cancelled(f"stopped after {done} of {len(scores)} images")
        if verdict == PREEMPT and done < len(scores):
            raise Preempted(f"preempted after {done} of {len(scores)} images")
    return joined(found)


def _resumed(world: World) -> tuple[list[SearchResult], State]:
    """Return what the world's checkpoint has found and this rank's share of the unfinished chunk's state,
    with its generators set; nothing without one."""
    saved = load_state(world.checkpoint)
    names = {field.name for field in fields(SearchResult)}
    # Neither images nor a state: a checkpoint whose images have other properties.
    if saved is None or not (names <= saved[0].keys() or _named(saved[0], STATE)):
        return [], {}
    world.set_generators(_named(saved[0], GENERATOR))
    whole = _named(saved[0], STATE)
    shares = {name: tensor.tensor_split(world.size)[world.rank] for name, tensor in whole.items()}
    state = {name: share if len(share) else whole[name][:1] for name, share in shares.items()}
    found = {name: saved[0][name] for name in names if name in saved[0]}
    return [SearchResult(**found)] if found else [], state


def _named(tensors: State, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _save(found: list[SearchResult], state: State, world: World) -> None:
    """Save what is found, the state of the unfinished chunk and the generators of every rank."""
    generators = {GENERATOR + kind: ranks for kind, ranks in world.generators().items()}
    unfinished = {STATE + name: tensor for name, tensor in state.items()}
    if world.rank == 0 and world.checkpoint is not None:
        images = vars(joined(found)) if found else {}
        save_state(world.checkpoint, images | unfinished | generators, {})


def _gathered(part: SearchResult, num_rows: int, world: World) -> SearchResult:
    return SearchResult(*(world.gather(tensor[:num_rows]) for tensor in vars(part).values()))

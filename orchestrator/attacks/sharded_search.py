"""Sharded search: a search over many predictions, shared by the workers, with checkpoints."""

import time
from collections.abc import Callable

from torch import Tensor

from orchestrator.attacks.pixel_search import SearchResult, joined
from orchestrator.training.checkpoint import load_state, save_state
from orchestrator.training.world import CANCEL, CONTINUE, PREEMPT, SAVE, Cancelled, Preempted, World

CHUNK = 256  # rows between two possible checkpoints
GENERATOR = "generator."  # prefix of the states of random generators in a checkpoint: F may draw noise


def search_all(search: Callable[[Tensor], SearchResult], scores: Tensor, world: World) -> SearchResult:
    """Search an image for every row of scores (N, k), N >= 1, each worker its share of each chunk.

    Return all of them in order, on every rank. Random generators are saved with the images, so that a
    resumed search goes on with the draws that would have followed. Raise `Cancelled` if a report cancels,
    `Preempted` if the process has to end.
    """
    found, last_save = _resumed(world), time.monotonic()
    while (done := sum(len(part.images) for part in found)) < len(scores):
        chunk = scores[done : done + CHUNK]
        rows = chunk.tensor_split(world.size)[world.rank]
        # A rank without a row searches one all the same, since every rank must take part in the gathering.
        part = search(rows if len(rows) else chunk[:1])
        found.append(_gathered(part, len(rows), world))
        done, verdict, is_due = done + len(chunk), CONTINUE, False
        if world.rank == 0:
            goes_on = world.report({"images": done, "of": len(scores)})
            verdict = PREEMPT if world.is_preempted() else CONTINUE if goes_on else CANCEL
            is_due = time.monotonic() - last_save >= world.checkpoint_seconds or verdict == PREEMPT
        if world.agree(SAVE if is_due else CONTINUE) == SAVE:
            _save(found, world)
            last_save = time.monotonic()
        verdict = world.agree(verdict)  # asked after the save, so that no rank is gone before it
        if verdict == CANCEL:
            raise Cancelled(f"stopped after {done} of {len(scores)} images")
        if verdict == PREEMPT and done < len(scores):
            raise Preempted(f"preempted after {done} of {len(scores)} images")
    return joined(found)


def _resumed(world: World) -> list[SearchResult]:
    """Return what the world's checkpoint has found, with its generators set; nothing without one."""
    saved = load_state(world.checkpoint)
    if saved is None:
        return []
    states = {name: tensor for name, tensor in saved[0].items() if name.startswith(GENERATOR)}
    world.set_generators({name.removeprefix(GENERATOR): state for name, state in states.items()})
    return [SearchResult(**{name: tensor for name, tensor in saved[0].items() if name not in states})]


def _save(found: list[SearchResult], world: World) -> None:
    """Save what is found and the generators of every rank."""
    states = {GENERATOR + kind: ranks for kind, ranks in world.generators().items()}
    if world.rank == 0 and world.checkpoint is not None:
        save_state(world.checkpoint, vars(joined(found)) | states, {})


def _gathered(part: SearchResult, num_rows: int, world: World) -> SearchResult:
    return SearchResult(*(world.gather(tensor[:num_rows]) for tensor in vars(part).values()))

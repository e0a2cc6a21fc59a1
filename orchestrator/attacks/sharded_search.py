"""Sharded search: a search over many predictions, shared by the workers, with checkpoints."""

import time
from collections.abc import Callable

from torch import Tensor

from orchestrator.attacks.pixel_search import SearchResult, joined
from orchestrator.training.checkpoint import pack, unpack
from orchestrator.training.world import CANCEL, CONTINUE, PREEMPT, Cancelled, Preempted, World

CHUNK = 256  # rows between two possible checkpoints


def search_all(search: Callable[[Tensor], SearchResult], scores: Tensor, world: World) -> SearchResult:
    """Search an image for every row of scores (N, k), N >= 1, each worker its share of each chunk.

    Return all of them in order, on every rank. Raise `Cancelled` if a report cancels, `Preempted` if the
    process has to end.
    """
    saved = unpack(world.checkpoint)
    found = [] if saved is None else [SearchResult(**saved[0])]
    last_save = time.monotonic()
    while (done := sum(len(part.images) for part in found)) < len(scores):
        chunk = scores[done : done + CHUNK]
        rows = chunk.tensor_split(world.size)[world.rank]
        # A rank without a row searches one all the same, since every rank must take part in the gathering.
        part = search(rows if len(rows) else chunk[:1])
        found.append(_gathered(part, len(rows), world))
        verdict = CONTINUE
        if world.rank == 0:
            goes_on = world.report({"images": done + len(chunk), "of": len(scores)})
            verdict = PREEMPT if world.is_preempted() else CONTINUE if goes_on else CANCEL
            is_due = time.monotonic() - last_save >= world.checkpoint_seconds
            if world.checkpoint and (is_due or verdict == PREEMPT):
                world.checkpoint.save(pack(vars(joined(found)), {}))
                last_save = time.monotonic()
        verdict = world.agree(verdict)
        if verdict == CANCEL:
            raise Cancelled(f"stopped after {done + len(chunk)} of {len(scores)} images")
        if verdict == PREEMPT and done + len(chunk) < len(scores):
            raise Preempted(f"preempted after {done + len(chunk)} of {len(scores)} images")
    return joined(found)


def _gathered(part: SearchResult, num_rows: int, world: World) -> SearchResult:
    return SearchResult(*(world.gather(tensor[:num_rows]) for tensor in vars(part).values()))

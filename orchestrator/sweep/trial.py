"""One trial: its planned stages, which of them must be built now, how it ended. Imports no torch.

Every executor walks `Trial.missing` and builds what it yields. There is no restore path: a stage that the
store has is not built again, so starting again is resuming.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.stages.graph import Stage, StageFailed
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.leases import Leases, held
from orchestrator.sweep.points import Point
from orchestrator.sweep.records import Status

logger = logging.getLogger(__name__)

ENDS: dict[str, Literal["pruned", "left"]] = {"cancelled": "pruned", "left": "left"}
REBUILDS = 3  # of what turns out damaged again; every other damaged input of a trial is built once more


@dataclass(frozen=True)
class Task:
    """A point with its planned stages, in order."""

    point: Point
    stages: Mapping[str, Stage]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended, before anything is read back from the store."""

    status: Status | Literal["left"]  # left: the sweep was interrupted, so nothing is known yet
    built: Sequence[str] = ()  # keys of the stages that this trial ran
    failed_stage: str | None = None
    error: str | None = None


class Trial:
    """One run of a trial's stages: an executor builds what `missing` yields and notes how that went."""

    def __init__(self, stages: Iterable[Stage], store: Artifacts, leases: Leases, owner: str) -> None:
        self._stages, self._store, self._leases, self._owner = list(stages), store, leases, owner
        self._built: list[str] = []
        self._failure: StageFailed | None = None

    def missing(self) -> Iterator[Stage]:
        """Yield each stage that the caller must build, in order, while holding its lease.

        Call `note_built` or `note_failed` before taking the next one. A failure ends the iteration, except
        that a damaged input, which has left the store, starts another pass, until `REBUILDS` passes have
        built nothing that was not built before.
        """
        num_fruitless = 0
        while True:
            self._failure, num_built = None, len(set(self._built))
            for stage in self._stages:
                yield from self._claim(stage)
                if self._failure is not None:
                    break
            if self._failure is None or self._failure.kind != "corrupt":
                return
            num_fruitless += len(set(self._built)) == num_built
            if num_fruitless == REBUILDS:
                return
            logger.warning("event=input_damaged stage=%s action=rebuild", self._failure.stage)

    def note_built(self, stage: Stage) -> None:
        """Count a stage as run by this trial."""
        self._built.append(stage.key)

    def note_failed(self, failure: StageFailed) -> None:
        """Keep why the stage that was yielded last is not built."""
        self._failure = failure

    @property
    def outcome(self) -> Outcome:
        """How the trial ended: an error is an outcome, not an exception."""
        failure = self._failure
        if failure is None:
            return Outcome("finished", self._built)
        return Outcome(ENDS.get(failure.kind, "failed"), self._built, failure.stage, failure.message)

    def _claim(self, stage: Stage) -> Iterator[Stage]:
        """Yield the stage under its lease unless it is stored or another owner publishes it meanwhile."""

        def is_stored() -> bool:
            return self._store.find(stage.key) is not None

        if is_stored():
            return
        with held(self._leases, stage.key, self._owner, is_done=is_stored) as is_mine:
            if is_mine:
                yield stage

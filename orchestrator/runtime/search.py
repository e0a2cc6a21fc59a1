"""The search of a study: Optuna's, imported for it alone, or one whose points are known at the start."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.config.study import Study
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.journal import Journal
from orchestrator.sweep.journal import SearchMemory
from orchestrator.sweep.ledger import Points
from orchestrator.sweep.point_checks import check_points
from orchestrator.sweep.points import Dropped, Point
from orchestrator.sweep.records import DatasetInput
from orchestrator.sweep.search import FixedPoints, check_ranges, fixed_points
from orchestrator.sweep.trial import Task
from orchestrator.sweep.validation import Preflight


def search_points(
    study: Study, preflight: Preflight, written: Study | None = None
) -> tuple[Points, int, list[Dropped]]:
    """Return the study's search, how many points it will ask for, and what a grid had to drop.

    `written` is the study before scale and overrides. Raise `StudyError` if no point can exist, a value is
    wrong, or the study names what its points do not have.
    """
    points: Sequence[Point]
    check_ranges(study)
    if study.search.algorithm == "optuna":
        from orchestrator.runtime.optuna import OptunaPoints  # here: Optuna takes half a second to import

        search = OptunaPoints(study, preflight)
        found: tuple[Points, int, list[Dropped]] = search, study.search.samples, search.dropped
        points = search.probed
    else:
        fixed, dropped = fixed_points(study, preflight)
        found, points = (fixed, len(fixed.points), dropped), fixed.points
    num_classes = {name: about.num_classes for name, about in preflight.descriptions.items()}
    check_points(study, points, num_classes, written)
    return found


@dataclass(frozen=True)
class Start:
    """What a search that learns goes on from when its sweep starts."""

    study: Study
    preflight: Preflight
    as_task: Callable[[Point], Task]
    store: Artifacts
    describe: Callable[[str], DatasetInput]

    def begin(self, search: Points, journal: Journal, *, writes: bool = True) -> str:
        """Give a search what its journal has of it, and on its first start stored trials if it starts warm.

        Return a line about that for people, empty for a search whose points are known. With `writes` false
        nothing is added to the journal.
        """
        if isinstance(search, FixedPoints):
            return ""
        from orchestrator.runtime.optuna import OptunaPoints  # here, as above
        from orchestrator.runtime.warm_start import stored_trials

        assert isinstance(search, OptunaPoints)
        memory = search.memory = SearchMemory(journal, writes=writes)
        if not self.study.search.warm_start:
            return ""
        known = memory.warm_start
        if known is None:
            known = stored_trials(self.study, self.preflight, self.as_task, self.store, self.describe)
            memory.keep_warm_start(known)
        search.start_warm(known)
        return f"warm start: the search is told of {len(known)} stored trials of these settings"


def known_points(search: Points) -> list[Point]:
    """Return the points that are known before anything runs, and let the search move on past them: of a grid
    or random search all, of one that learns those that its journal has and the next batch."""
    points = batch = search.ask()
    if isinstance(search, FixedPoints):
        return points
    from orchestrator.runtime.optuna import OptunaPoints  # here, as above

    assert isinstance(search, OptunaPoints)
    told = search.memory.told if search.memory else {}
    while batch and all(point.key in told for point in batch):
        search.tell([(point, None) for point in batch])  # with what the journal has
        batch = search.ask()
        points += batch
    return points

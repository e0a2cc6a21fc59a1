"""The search of a study: Optuna's, imported for it alone, or one whose points are known at the start."""

from orchestrator.config.study import Study
from orchestrator.sweep.ledger import Points
from orchestrator.sweep.points import Dropped
from orchestrator.sweep.search import fixed_points
from orchestrator.sweep.validation import Preflight


def search_points(study: Study, preflight: Preflight) -> tuple[Points, int, list[Dropped]]:
    """Return the study's search, how many points it will ask for, and what a grid had to drop.

    Raise `StudyError` if no point can exist or a value is wrong.
    """
    if study.search.algorithm == "optuna":
        from orchestrator.runtime.optuna import OptunaPoints  # here: Optuna takes half a second to import

        search = OptunaPoints(study, preflight)
        return search, study.search.samples, search.dropped
    fixed, dropped = fixed_points(study, preflight)
    return fixed, len(fixed.points), dropped

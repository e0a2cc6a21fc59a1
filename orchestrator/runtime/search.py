"""The search of a study: Optuna's, imported for it alone, or one whose points are known at the start."""

from collections.abc import Sequence

from orchestrator.config.study import Study
from orchestrator.sweep.ledger import Points
from orchestrator.sweep.point_checks import check_points
from orchestrator.sweep.points import Dropped, Point
from orchestrator.sweep.search import check_ranges, fixed_points
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

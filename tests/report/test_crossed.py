"""Crossed values: which axes are factors, where cells go, means and residuals by hand."""

import math

import numpy as np
import pytest

from orchestrator.report.crossed import CLASSES, ByClass, Crossed, cross


def by_class(*values: float, first: int = 0) -> ByClass:
    """Return numbers of consecutive classes."""
    return ByClass(np.arange(first, first + len(values)), np.array(values))


def test_differences_are_of_the_same_classes_and_only_of_those_that_both_have() -> None:
    upper, lower = by_class(5.0, 6.0, 7.0, first=1), ByClass(np.array([0, 2, 3]), np.array([9.0, 1.0, 2.0]))
    found = upper.minus(lower)
    assert (found.identities.tolist(), found.values.tolist()) == ([2, 3], [5.0, 5.0])
    assert upper.among(lower).values.tolist() == [6.0, 7.0]
    assert len(by_class(1.0).minus(by_class(1.0, first=1)).values) == 0


def test_seeds_of_f_and_g_swept_apart_are_two_factors() -> None:
    cells = [({"target.seed": f, "attack.seed": g}, float(10 * f + g)) for f in (4, 7) for g in (1, 2, 3)]
    found = cross(cells)
    assert found.factors == ("target.seed", "attack.seed")
    assert found.values.tolist() == [[41, 42, 43], [71, 72, 73]]
    assert found.in_words == "2 target.seed x 3 attack.seed"


def test_axes_that_move_together_or_are_nested_are_one_factor() -> None:
    together = cross([({"target.seed": s, "attack.seed": s + 5}, float(s)) for s in (0, 1, 2)])
    assert (together.factors, together.values.tolist()) == (("target.seed and attack.seed",), [0, 1, 2])
    assert together.resampled == ("target.seed", "attack.seed")
    nested = cross([({"target.seed": s // 2, "attack.seed": s}, float(s)) for s in range(4)])
    assert nested.factors == ("target.seed and attack.seed",)
    assert nested.values.tolist() == [0.5, 2.5]  # means over the seeds of G drawn for each seed of F
    constant = cross([({"seed": s, "judge.seed": 9}, float(s)) for s in (0, 1)])
    assert constant.factors == ("seed",)


def test_classes_are_places_by_identity_and_what_is_missing_is_nan() -> None:
    found = cross([({"seed": 0}, by_class(1.0, 2.0)), ({"seed": 1}, by_class(3.0, 4.0, first=1))])
    assert found.factors == ("seed", CLASSES)
    np.testing.assert_array_equal(found.values, [[1, 2, math.nan], [math.nan, 3, 4]])
    assert (found.count, found.mean) == (4, 2.5)
    assert found.repeated().values.tolist() == [1.5, 3.5]
    assert found.times(-1).mean == -2.5


def test_cells_at_one_place_are_averaged_and_one_cell_is_no_factor() -> None:
    found = cross([({"seed": 0}, 1.0), ({"seed": 0}, 2.0)])
    assert (found.factors, found.mean, found.drawn, found.in_words) == ((), 1.5, [], "nothing")
    assert cross([({}, by_class(1.0, 4.0))]).in_words == "2 classes"
    assert math.isnan(Crossed(np.array([math.nan]), ("seed",)).mean)


def test_residuals_are_what_effects_of_levels_leave() -> None:
    whole = Crossed(np.array([[1.0, 2.0], [3.0, 8.0]]), ("seed", CLASSES))
    # Mean 3.5; seeds -2 and 2, classes -1.5 and 1.5: 1 - (3.5 - 2 - 1.5) = 1, and so on.
    assert whole.residuals().tolist() == [[1.0, -1.0], [-1.0, 1.0]]
    effects = np.array([0.0, 1.0, 5.0])[:, None] + np.array([2.0, 3.0, 7.0, 1.0])
    effects[0, 1] = effects[2, 3] = math.nan
    additive = Crossed(effects, ("seed", CLASSES))
    assert np.abs(additive.residuals()).max() == pytest.approx(0, abs=1e-6)

"""The table of profiles cell by cell, and drawings that do not depend on when they are made."""

import io

import pytest
from PIL import Image

from orchestrator.analyses.fisher import Profile
from orchestrator.analyses.profiles import CLASSIFICATION, Measured, profile_csv, profile_png

NAMES = ("blocks.0", "head")
BOTH = {
    CLASSIFICATION: Profile(NAMES, (1.0, 3.0)),
    Measured("inversion", "l2", 10): Profile(NAMES, (0.75, 0.25)),
}


def size(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size


def test_the_table_by_hand() -> None:
    profiles = {**BOTH, Measured("inversion", "l1"): Profile(NAMES, (0.0, 0.0))}
    assert profile_csv(profiles).decode() == (
        "task,distance,iteration,layer,fi,share\n"
        "classification,,,blocks.0,1.0,0.25\n"
        "classification,,,head,3.0,0.75\n"
        "inversion,l2,10,blocks.0,0.75,0.75\n"
        "inversion,l2,10,head,0.25,0.25\n"
        "inversion,l1,,blocks.0,0.0,\n"
        "inversion,l1,,head,0.0,\n"
    )


def test_a_drawing_is_the_same_every_time() -> None:
    drawing = profile_png(BOTH)
    assert drawing == profile_png(BOTH)
    assert drawing != profile_png({**BOTH, CLASSIFICATION: Profile(NAMES, (3.0, 1.0))})
    assert b"Software" not in drawing


def test_distances_are_rows_and_iterations_columns() -> None:
    one = BOTH[Measured("inversion", "l2", 10)]
    wider = profile_png({**BOTH, Measured("inversion", "l2", 20): one})
    higher = profile_png({**BOTH, Measured("inversion", "l1", 10): one})
    (width, height), base = size(wider), size(profile_png(BOTH))
    assert width > base[0]
    assert height == base[1]
    (width, height) = size(higher)
    assert width == base[0]
    assert height > base[1]


def test_what_was_not_measured_stays_empty() -> None:
    one = BOTH[Measured("inversion", "l2", 10)]
    three = {**BOTH, Measured("inversion", "l1"): one}
    assert profile_png(three) != profile_png({**three, Measured("inversion", "l1", 10): one})


def test_a_profile_without_information_has_no_bars() -> None:
    nothing = {Measured("inversion", "l2", 1): Profile(NAMES, (0.0, 0.0))}
    assert size(profile_png(nothing)) == size(profile_png(BOTH))


def test_many_layers_are_numbered() -> None:
    names = tuple(f"blocks.{place}.convolution" for place in range(100))
    deep = {Measured("inversion", "l2", 1): Profile(names, (1.0,) * 100)}
    assert size(profile_png(deep))[0] > 4 * size(profile_png(BOTH))[0]


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="no profile of an inversion is given"):
        profile_png({CLASSIFICATION: BOTH[CLASSIFICATION]})
    with pytest.raises(ValueError, match="draw one target at a time"):
        profile_png({**BOTH, Measured("inversion", "l1"): Profile(("fc",), (1.0,))})

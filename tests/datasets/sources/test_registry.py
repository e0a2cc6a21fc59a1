"""Sources by name, and the crop and shape of their images."""

import numpy as np
import pytest
from pydantic import ValidationError

from orchestrator.datasets.manifest import Options
from orchestrator.datasets.sources.base import BadImage, Source, array_source
from orchestrator.datasets.sources.registry import converted, open_source, settled

WIDE = np.random.default_rng(0).integers(0, 256, (2, 9, 14, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "imagenet",
            "SOURCE=imagenet is unknown and no such path exists; known are digits, photo-patches, mnist:DIR",
        ),
        ("/no/such/folder", "SOURCE=/no/such/folder is unknown and no such path exists"),
        ("mnist", "SOURCE=mnist needs an existing folder after mnist:"),
        ("mnist:/no/such", "SOURCE=mnist:/no/such needs an existing folder"),
        (__file__, r"is neither a folder, a \.zip nor a \.npz"),
    ],
)
def test_an_unknown_source_lists_the_known_ones(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_source(text)


def wide(**options: object) -> np.ndarray:
    """Return the first picture of a set of 9x14 as it would be staged."""
    source = array_source("npz", WIDE, np.arange(2), "ab", "0" * 64)
    return converted(source, Options.model_validate(options)).read(0)


def test_a_crop_takes_exactly_its_square() -> None:
    assert np.array_equal(wide(crop=(5, 2, 7)), WIDE[0, 2:9, 5:12])
    assert np.array_equal(wide(crop="centre"), WIDE[0, :, 2:11])
    assert np.array_equal(wide(crop=(0, 0, 1)), WIDE[0, :1, :1])


@pytest.mark.parametrize(
    ("side", "share", "first", "size"),
    [(128, "88/128", 20, 88), (100, "67/100", 16, 67), (64, "54/64", 5, 54), (200, "88/128", 31, 137)],
)
def test_a_share_is_the_centre_of_each_side(side: int, share: str, first: int, size: int) -> None:
    """The public sets of TL-DMI: FFHQ, Pubfig83 and FaceScrub; and an FFHQ of another size."""
    pictures = np.random.default_rng(1).integers(0, 256, (1, side, side, 1), dtype=np.uint8)
    source = array_source("npz", pictures, np.zeros(1, int), "a", "0" * 64)
    cut = converted(source, Options(crop=share)).read(0)
    assert np.array_equal(cut, pictures[0, first : first + size, first : first + size])


def test_a_share_leaves_a_picture_in_its_form() -> None:
    assert np.array_equal(wide(crop="1/2", stretch=True), WIDE[0, 2:6, 3:10])
    assert wide(crop="1/100", stretch=True).shape == (1, 1, 3)
    assert np.array_equal(wide(crop="9/9", stretch=True), WIDE[0])
    with pytest.raises(BadImage, match="is 4x7, networks take squares"):
        wide(crop="1/2")


@pytest.mark.parametrize("share", ["129/128", "0/64", "54/0", "54/64/2", "1/2 ", "-1/2", "1.5/2", "/"])
def test_a_share_that_is_none_is_refused(share: str) -> None:
    with pytest.raises(ValidationError, match="crop"):
        Options(crop=share)


def test_a_crop_comes_before_resizing() -> None:
    assert np.array_equal(wide(crop=(4, 1, 8), size=8), WIDE[0, 1:9, 4:12])


@pytest.mark.parametrize("crop", [(8, 0, 7), (0, 3, 7), (14, 0, 1)])
def test_a_crop_outside_the_picture_is_a_bad_image(crop: tuple[int, int, int]) -> None:
    numbers = ",".join(map(str, crop))
    with pytest.raises(
        BadImage, match=f"image 0 is 9x14, so the crop LEFT,TOP,SIDE={numbers} leaves it"
    ) as bad:
        wide(crop=crop)
    assert bad.value.reason == "outside the crop"


def test_a_picture_that_is_not_square_needs_a_decision() -> None:
    text = "image 0 is 9x14, networks take squares; pass --crop LEFT,TOP,SIDE, --crop centre or --stretch"
    with pytest.raises(BadImage, match=text) as bad:
        wide(size=8)
    assert bad.value.reason == "not square"
    assert wide(stretch=True, size=8).shape == (8, 8, 3)
    assert np.array_equal(wide(stretch=True), WIDE[0])


def test_square_pictures_need_none() -> None:
    source = array_source("npz", WIDE[:, :, :9], np.arange(2), "ab", "0" * 64)
    assert np.array_equal(converted(source, Options()).read(1), WIDE[1, :, :9])


@pytest.mark.parametrize(
    ("options", "crop", "stretch"),
    [
        ({}, (35, 70, 108), False),
        ({"crop": "centre"}, "centre", False),
        ({"stretch": True}, None, True),
        ({"crop": "54/64"}, "54/64", False),
    ],
)
def test_the_sources_own_crop_gives_way(options: dict[str, object], crop: object, stretch: bool) -> None:
    source = Source(
        "celeba", "set", ("a", "b"), np.arange(2), WIDE.__getitem__, str, "0" * 64, crop=(35, 70, 108)
    )
    chosen = settled(source, Options.model_validate(options))
    assert (chosen.crop, chosen.stretch) == (crop, stretch)


def test_a_share_keeps_the_stretching_of_a_source_of_boxes() -> None:
    faces = Source(
        "facescrub", "set", ("a", "b"), np.arange(2), WIDE.__getitem__, str, "0" * 64, stretch=True
    )
    chosen = settled(faces, Options(crop="54/64"))
    assert (chosen.crop, chosen.stretch) == ("54/64", True)
    assert settled(faces, Options(crop="centre")).stretch is False

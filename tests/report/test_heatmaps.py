"""Heat maps: which pairs of axes have one, and over which settings."""

import io
import math

import pytest
from PIL import Image

from orchestrator.config.base import Scalar
from orchestrator.report.heatmaps import _title, heat_maps
from orchestrator.sweep.points import ABSENT
from orchestrator.sweep.records import TrialRecord
from tests.report.trials import FAILED, MSE, record


def test_one_heat_map_for_each_pair_of_swept_axes() -> None:
    records: list[TrialRecord] = [
        record(i, {"m": m, "k": k, "auxiliary.size": size, "seed": seed, "align": True}, {MSE: i / 10})
        for i, (m, k, size, seed) in enumerate(
            (m, k, size, seed) for m in (1, "all") for k in (3, 5) for size in (10, 20) for seed in (0, 1)
        )
    ]
    maps = heat_maps(records, MSE)
    assert set(maps) == {
        "heatmap-m-k.png",
        "heatmap-m-auxiliary-size.png",
        "heatmap-k-auxiliary-size.png",
    }  # not seed, not an axis of one value
    assert all(image.startswith(b"\x89PNG") for image in maps.values())
    assert heat_maps(records[::-1], MSE).keys() == maps.keys()
    assert heat_maps(records, MSE) == maps
    assert heat_maps([FAILED], MSE) == {}
    assert heat_maps(records, "no/such") == {}


def test_only_pairs_of_axes_whose_cells_share_a_setting_have_a_map() -> None:
    axes: list[dict[str, Scalar]] = [
        {"m": 1, "attack": "inverter", "align": True},
        {"m": 1, "attack": "inverter", "align": False},
        {"m": 1, "attack": "mia", "align": "-"},
        {"m": 2, "attack": "inverter", "align": True},
    ]
    records = [record(index, one, {MSE: 0.1 * index}) for index, one in enumerate(axes)]
    assert list(heat_maps(records, MSE)) == ["heatmap-attack-align.png"]  # both have m = 1


def searched(count: int) -> list[TrialRecord]:
    """Return trials as a random search over two ranges leaves them."""
    return [
        record(
            i,
            {"attack.offset": 1.5 * i + 1, "attack.recipe.learning_rate": 1e-5 * 1.03**i},
            {MSE: i / 7},
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [25, 500])
def test_a_search_over_ranges_is_scattered_in_a_picture_of_one_size(count: int) -> None:
    maps = heat_maps(searched(count), MSE)
    assert list(maps) == ["scatter-attack-offset-attack-recipe-learning-rate.png"]
    with Image.open(io.BytesIO(maps.popitem()[1])) as image:
        assert image.size == (768, 576)


def test_every_heat_map_is_bounded() -> None:
    square = [record(24 * a + b, {"m": a, "k": b}, {MSE: 0.1 * a}) for a in range(24) for b in range(24)]
    (png,) = heat_maps(square, MSE).values()
    with Image.open(io.BytesIO(png)) as image:
        assert image.size[0] * image.size[1] < 10_000_000


def test_words_beside_a_range_are_places_and_too_many_words_are_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    axes: list[dict[str, Scalar]] = [
        {"attack.offset": float(i), "attack": ("inverter", "mia $x$")[i % 2]} for i in range(30)
    ]
    axes.append({"attack.offset": ABSENT, "attack": "joint"})
    records = [record(i, one, {MSE: i / 9}) for i, one in enumerate(axes)]
    assert list(heat_maps(records, MSE)) == ["scatter-attack-offset-attack.png"]
    words = [record(i, {"target": f"t{i}", "m": i % 2}, {MSE: i / 9}) for i in range(30)]
    assert heat_maps(words, MSE) == {}
    assert "name=target-m.png reason='target has too many values'" in caplog.text


def test_many_axes_have_a_bounded_number_of_maps(caplog: pytest.LogCaptureFixture) -> None:
    records = [record(i, {f"a{n}": i for n in range(11)}, {MSE: i / 9}) for i in range(2)]
    assert len(heat_maps(records, MSE)) <= 45
    assert "event=heat_maps_left_out pairs=55 drawn=45" in caplog.text


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_values_that_are_not_finite_have_no_cell(value: float) -> None:
    records = [record(i, {"m": i % 2, "k": i // 2}, {MSE: i / 9}) for i in range(4)]
    assert list(heat_maps([*records, record(5, {"m": 0, "k": 0}, {MSE: value})], MSE)) == ["heatmap-m-k.png"]
    assert heat_maps([record(i, {"m": i % 2, "k": i // 2}, {MSE: value}) for i in range(4)], MSE) == {}


def test_the_title_counts_trials_on_held_images() -> None:
    records = [
        record(i, {"m": i}, {MSE: 0.1}, held=held) for i, held in enumerate([(), ("train",), ("test",)])
    ]
    assert _title(MSE, records).splitlines()[-1] == "1 of 3 trials on images that the adversary held"
    assert len(_title(MSE, records[:2]).splitlines()) == 2

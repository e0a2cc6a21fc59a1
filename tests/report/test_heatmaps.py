"""Heat maps: which pairs of axes have one, and over which settings."""

from orchestrator.config.base import Scalar
from orchestrator.report.heatmaps import heat_maps
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

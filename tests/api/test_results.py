"""Results in Python: tables of the report, images and curves of a trial, as pandas and NumPy."""

import numpy as np
import pandas as pd
import pytest

from orchestrator.api.results import Results
from orchestrator.api.study import Study
from orchestrator.config.base import Refused
from orchestrator.report.stored_images import kept_images
from tests import tiny

CLAIM = {
    "claim": "more scores leak more",
    "source": "here",
    "metric": "inversion/mse_test",
    "axis": "m",
    "order": [1, 2],
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Run two trials over two seeds."""
    folder = tmp_path_factory.mktemp("results")
    axes = {"release.truncation": [1, 2], "seed": [0, 1]}
    study = tiny.write(folder / "tiny.yaml", axes, report={"orderings": [CLAIM]})
    return Study.load(study).run(out=folder / "out", ship_later=True)


def test_tables_are_those_of_the_report(results: Results) -> None:
    assert len(results.table) == 4
    assert results.table["status"].tolist() == ["finished"] * 4
    assert {"results", "summary", "orderings", "variance"} <= set(results.tables)
    assert results.table.equals(pd.read_csv(results.folder / "results.csv"))
    assert results.orderings["claim"].tolist() == [CLAIM["claim"]]
    assert results.orderings["low"][0] < results.orderings["difference"][0] < results.orderings["high"][0]
    with pytest.raises(Refused, match=r"^table=delta is not in this report; choose one of .*, results, "):
        _ = results["delta"]


def test_a_summary_has_means_and_half_intervals(results: Results) -> None:
    assert results.summary["m"].tolist() == [1, 2]
    assert results.summary["seeds"].tolist() == [2, 2]
    means = results.table.groupby("m")["inversion/mse_test"].mean()
    assert results.summary["inversion/mse_test"].tolist() == pytest.approx(means.tolist(), rel=1e-5)
    assert (results.summary["inversion/mse_test +-"] > 0).all()


def test_images_of_a_trial_are_arrays(results: Results) -> None:
    name = results.table["trial"][1]
    private, reconstructions, labels = results.images(name)
    assert private.shape == reconstructions.shape == (4, 1, 32, 32)
    assert (private.dtype, reconstructions.dtype, labels.shape) == (np.uint8, np.uint8, (4,))
    record = next(record for record in results.records if record.name == name)
    kept = kept_images(record, ["train", "test"], results.store)
    assert np.array_equal(private, kept["test"][0])
    assert np.array_equal(results.images(1, "train").reconstructions, kept["train"][1])
    assert np.array_equal(results.images(-3).private, private)
    with pytest.raises(Refused, match=r"^part=class is none of .*; choose one of train, test"):
        results.images(name, "class")
    with pytest.raises(Refused, match=r"^trial=9 is not in the table; choose one, such as m001-"):
        results.images(9)


def test_curves_of_a_trial_are_columns(results: Results) -> None:
    curves = results.curves(0)
    assert curves.index.tolist() == [1]  # one epoch
    assert curves["inversion/validation_loss"].notna().all()

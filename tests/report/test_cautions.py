"""Cautions: failures, few replicates."""

from orchestrator.config.report import Report
from orchestrator.report.cautions import cautions, few_replicates
from tests.report.trials import FAILED, MSE, grid, record


def test_failures_are_named_and_settings_with_few_replicates_counted() -> None:
    records = [*grid({(1, 5): [0.1, 0.2, 0.6], (3, 5): [0.5], (5, 5): [0.5, 0.6]}), FAILED]
    assert cautions(records, Report()) == ['- failed: `0002` in inversion: ValueError: a "b", c']
    assert few_replicates(records, Report()) == [
        "- few replicates: 1 of 3 settings have one replicate: no interval.",
        "- few replicates: 1 of 3 settings have 2 replicates: an interval says little.",
    ]
    assert cautions([record(0, {}, {MSE: 0.1})], Report()) == []

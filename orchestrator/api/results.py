"""Results of a study in Python: the report's tables as pandas, one trial's images as arrays."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from orchestrator.config.base import Refused
from orchestrator.config.study import Study
from orchestrator.metrics.names import CLASS
from orchestrator.report.stored_images import kept_images, kept_labels
from orchestrator.store.artifacts import Artifacts
from orchestrator.sweep.records import TrialRecord


class Images(NamedTuple):
    """Private images beside what an attack made of them, in one order."""

    private: np.ndarray
    """(N, C, S, S) uint8; of class inference the private image of the class that is nearest to its mean."""

    reconstructions: np.ndarray
    """(N, C, S, S) uint8."""

    labels: np.ndarray
    """(N,) int32: the target's class of each."""


@dataclass(frozen=True)
class Results:
    """What a run left: the report's files, and the trials in the store."""

    study: Study
    records: Sequence[TrialRecord] = field(repr=False)
    """Every trial: settings, metrics, curves over epochs, keys of its stages, its error if it failed."""

    files: Mapping[str, bytes] = field(repr=False)
    """The report: path -> content; the same as in `folder`."""

    store: Artifacts = field(repr=False)
    folder: Path
    links: tuple[str, ...] = field(default=(), repr=False)
    """Lines for people: where MLflow shows the sweep."""

    @property
    def table(self) -> pd.DataFrame:
        """A row for each trial in the study's order: name, swept axes, status, every metric, the error."""
        return self["results"]

    @property
    def summary(self) -> pd.DataFrame:
        """A row for each setting: means over seeds, and half of their 95 % intervals beside them."""
        return self["summary"]

    @property
    def orderings(self) -> pd.DataFrame:
        """A row for each order that a paper claims: difference, 95 % interval, p-values, verdict.

        Raise `Refused` if the study claims none.
        """
        return self["orderings"]

    @property
    def tables(self) -> list[str]:
        """Names of the report's tables."""
        return sorted(name.removesuffix(".csv") for name in self.files if name.endswith(".csv"))

    def __getitem__(self, name: str) -> pd.DataFrame:
        """Return a table of the report as pandas reads its CSV; raise `Refused` for one that is not there."""
        if name not in self.tables:
            raise Refused("table", name, "is not in this report", f"choose one of {', '.join(self.tables)}")
        return pd.read_csv(io.BytesIO(self.files[f"{name}.csv"]))

    def images(self, trial: str | int, part: str | None = None) -> Images:
        """Return the images that a trial keeps, `evaluation.grid` of them; it is named, or a row of `table`.

        `part` is train, test or, of class inference, class; by default the last that the trial has. Images
        are (N, C, S, S) uint8. Raise `Refused` for a trial or part without images, `Corrupt` for a damaged
        file.
        """
        record = self._record(trial)
        if record.status != "finished":
            raise Refused("trial", record.name, f"is {record.status} and has no images", "choose another")
        kept = kept_images(record, ["train", "test", CLASS], self.store)
        chosen = part or list(kept)[-1]
        if chosen not in kept:
            raise Refused("part", chosen, f"is none of {record.name}", f"choose one of {', '.join(kept)}")
        private, reconstructions = kept[chosen]
        return Images(private, reconstructions, kept_labels(record, chosen, self.store)[: len(private)])

    def curves(self, trial: str | int) -> pd.DataFrame:
        """Return a trial's losses and other values over epochs: a column for each, indexed by epoch.

        Raise `Refused` for an unknown trial.
        """
        curves = self._record(trial).curves
        columns = {curve.name: pd.Series(dict(curve.values), dtype=float) for curve in curves}
        return pd.DataFrame(columns).rename_axis("epoch")

    def _record(self, trial: str | int) -> TrialRecord:
        ordered = sorted(self.records, key=lambda record: record.index)
        if not isinstance(trial, str) and -len(ordered) <= trial < len(ordered):
            return ordered[trial]
        for record in ordered:
            if record.name == trial:
                return record
        raise Refused("trial", trial, "is not in the table", f"choose one, such as {ordered[0].name}")

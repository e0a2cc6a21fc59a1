"""Tables and drawings of Fisher information for each layer, as in TL-DMI's supplement (figures 4 and 5)."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orchestrator.analyses.fisher import Profile
from orchestrator.metrics.plots import figure_png

COLUMNS = ("task", "distance", "iteration", "layer", "fi", "share")
NAMED_LAYERS = 20  # more of them are numbered, since names would overlap
COLORS = {"classification": "tab:gray", "inversion": "tab:red"}


class Measured(NamedTuple):
    """Task, distance and iteration of a profile."""

    task: Literal["classification", "inversion"]
    distance: str = ""  # none for classification
    iteration: int | None = None  # none for classification and for inverters, which have no iterations


CLASSIFICATION = Measured("classification")


def profile_csv(profiles: Mapping[Measured, Profile]) -> bytes:
    """Return one row for each layer of each profile; a share that does not exist is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for measured, profile in profiles.items():
        for layer, value, share in zip(profile.names, profile.values, profile.normalised, strict=True):
            writer.writerow([*measured, layer, value, "" if math.isnan(share) else share])
    return text.getvalue().encode()


def profile_png(profiles: Mapping[Measured, Profile]) -> bytes:
    """Draw shares of layers as bars, inversion beside classification: a row for each distance, a column for
    each iteration."""
    names = _shared_names(profiles)
    inversions = [measured for measured in profiles if measured.task == "inversion"]
    distances = list(dict.fromkeys(measured.distance for measured in inversions))
    iterations = list(dict.fromkeys(measured.iteration for measured in inversions))
    size = (1.5 + max(2.5, 0.22 * len(names)) * len(iterations), 0.8 + 2.4 * len(distances))
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    panels = figure.subplots(len(distances), len(iterations), sharex=True, sharey=True, squeeze=False)
    for row, distance in zip(panels, distances, strict=True):
        for axis, iteration in zip(row, iterations, strict=True):
            measured = Measured("inversion", distance, iteration)
            if measured not in profiles:
                axis.set_axis_off()
                continue
            _draw(axis, [(one.task, profiles[one]) for one in (CLASSIFICATION, measured) if one in profiles])
            axis.set_title(f"{distance}, iteration {iteration}" if iteration else distance, fontsize=8)
        row[0].set_ylabel("share of Fisher information", fontsize=8)
    for axis in panels[-1]:
        _name_layers(axis, names)
    panels[0][0].legend(fontsize=7)
    return figure_png(figure)


def _shared_names(profiles: Mapping[Measured, Profile]) -> tuple[str, ...]:
    """Return the layers of all profiles, of which one must be an inversion's."""
    if not any(measured.task == "inversion" for measured in profiles):
        raise ValueError("no profile of an inversion is given; each panel shows one.")
    names = {profile.names for profile in profiles.values()}
    if len(names) > 1:
        raise ValueError(f"profiles name {len(names)} different lists of layers; draw one target at a time.")
    return names.pop()


def _draw(axis: Axes, profiles: Sequence[tuple[str, Profile]]) -> None:
    """Put the bars of each task side by side at each layer's number."""
    width = 0.8 / len(profiles)
    for place, (task, profile) in enumerate(profiles):
        shift = (place - (len(profiles) - 1) / 2) * width
        places = [number + shift for number in range(1, len(profile.names) + 1)]
        shares = [0.0 if math.isnan(share) else share for share in profile.normalised]
        axis.bar(places, shares, width, label=task, color=COLORS[task])


def _name_layers(axis: Axes, names: Sequence[str]) -> None:
    axis.set_xlabel("layer, early to late", fontsize=8)
    if len(names) <= NAMED_LAYERS:
        axis.set_xticks(range(1, len(names) + 1), list(names), rotation=90, fontsize=6)

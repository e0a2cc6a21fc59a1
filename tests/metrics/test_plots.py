"""Figures as PNG: the same figure gives the same bytes."""

import io

from matplotlib.figure import Figure
from PIL import Image

from orchestrator.metrics.plots import figure_png


def figure(height: float) -> Figure:
    figure = Figure(figsize=(2, 1), dpi=50)
    figure.subplots().plot([0.0, 1.0], [0.0, height])
    return figure


def test_equal_figures_are_equal_bytes_without_software_or_date() -> None:
    first = figure_png(figure(1.0))
    assert first == figure_png(figure(1.0)) != figure_png(figure(2.0))
    with Image.open(io.BytesIO(first)) as image:
        assert image.size == (100, 50)
        assert not {"Software", "Creation Time"} & image.info.keys()

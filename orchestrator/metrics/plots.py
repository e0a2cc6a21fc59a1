"""Plots: matplotlib figures as PNG."""

import io

import matplotlib as mpl
from matplotlib.figure import Figure

mpl.rcParams["text.parse_math"] = False  # a name with dollar signs is no formula


def figure_png(figure: Figure) -> bytes:
    """Render a figure as PNG, without a date or a version in it: equal figures give equal bytes."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "fixed"}):
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()

"""Figures as PNG."""

import io

import matplotlib as mpl
from matplotlib.figure import Figure


def png(figure: Figure) -> bytes:
    """Return the figure as PNG, without a date or a version in it."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "fixed"}):
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()

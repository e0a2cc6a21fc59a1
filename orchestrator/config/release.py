"""Release: which part of each prediction the service gives away."""

from typing import Annotated

from pydantic import Field

from orchestrator.config.base import Count, Spec


class Release(Spec):
    """The part of each prediction that the target's service releases."""

    truncation: Count | None = None
    """Largest scores kept per prediction (m); None releases all k of them."""

    decimals: Annotated[int, Field(ge=1, le=7)] | None = None
    """Kept scores are rounded to this many decimals; None releases float32."""

    renormalised: bool = False
    """True divides the kept scores by their sum, before rounding; AMI's target does not."""

    labels_only: bool = False
    """True releases the top label without its score (entry 1), at every truncation."""


EVERYTHING, LABELS = Release(), Release(labels_only=True)
"""What trials release that differ in nothing that counts: one object, for all of them."""

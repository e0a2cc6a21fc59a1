"""Release: which part of each prediction the service gives away."""

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.config.base import Count, Positive, Seed, Spec, added_field


class Shield(Spec):
    """Stealthy Shield Defense (SSD; Zhuang et al., ICLR 2025): each answer is moved towards F's mean answer
    to a class that is drawn from it, so that answers to images of one class differ less."""

    temperature: Positive = 0.1
    """T of the draw: a class y of probability softmax(scores / T) (published for every network)."""

    budget: Positive = 0.5
    """Epsilon: an answer moves by at most this times its entropy in nats, as an l1 distance. Published: 0.35
    for IR-152 on CelebA, 0.5 on FaceScrub, 0.8 for VGG16 on FaceScrub."""

    means: Literal["held-out", "train"] = "held-out"
    """Images of a class whose mean scores are its mean answer: those held out from F's training, as
    described, for classes without one its other training images; or these for every class."""

    seed: Seed = 0
    """Of the draws; with an image's 256 levels it decides the class that is drawn for it, in every query."""


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

    shield: Shield | None = added_field(None)
    """Moves all k scores before they are truncated, renormalised, rounded or reduced to a label; None leaves
    them as F has them."""


EVERYTHING, LABELS = Release(), Release(labels_only=True)
"""What trials release that differ in nothing that counts: one object, for all of them."""


def shielded_as(release: Release, by: Release) -> Release:
    """Return a release behind the shield of another, if that has one."""
    return release.but(shield=by.shield) if by.shield else release

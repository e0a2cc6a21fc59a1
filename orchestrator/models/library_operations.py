"""Operations of library networks: tables of multiply-adds and activations at one image side, without torch.

Both grow with the area. Measured once with torch's FLOP counter (two for a multiply-add) on the networks that
`library` builds; tests/models/test_operations.py counts them again.
"""

from dataclasses import dataclass

from orchestrator.models import outlines
from orchestrator.models.outlines import Library

MILLION = 1e6


@dataclass(frozen=True)
class Table:
    """A network's multiply-adds and activations."""

    outline: Library
    """Its cut points and the inputs of its head."""

    side: int
    """Image side of the numbers."""

    per_channel: float
    """Millions of multiply-adds of the first convolution for each input channel."""

    counts: tuple[tuple[float, float], ...]
    """Millions of multiply-adds and of activations since the cut point before, of three input channels."""

    def parts(
        self, classes: int, channels: int, image_size: int, head: str
    ) -> dict[str, tuple[float, float]]:
        """Return cut point, and `head` -> multiply-adds and activations of an image."""
        area = MILLION * (image_size / self.side) ** 2
        parts = {
            cut: (count * area, kept * area)
            for cut, (count, kept) in zip(self.outline.parts, self.counts, strict=True)
        }
        first, (count, kept) = next(iter(parts.items()))
        parts[first] = count - (3 - channels) * self.per_channel * area, kept
        features = self.outline.features
        return {**parts, head: (float(features * classes), float(features + classes))}


def _units(
    first: tuple[float, float], other: tuple[float, float], count: int
) -> tuple[tuple[float, float], ...]:
    """Return a stage of units, all but the first of which are alike."""
    return (first, *[other] * (count - 1))


LIBRARY = {
    "resnet18": Table(
        outlines.resnet18,
        224,
        39.34,
        (
            (118.0, 2.61),
            (462.4, 2.41),
            (411.0, 1.4),
            (411.0, 0.7),
            (411.0, 0.35),
        ),
    ),
    "resnet34": Table(
        outlines.resnet34,
        224,
        39.34,
        (
            (118.0, 2.61),
            (693.6, 3.61),
            (873.5, 2.61),
            (1335.9, 1.91),
            (642.3, 0.5),
        ),
    ),
    "resnet50": Table(
        outlines.resnet50,
        224,
        39.34,
        (
            (118.0, 2.61),
            (667.9, 12.44),
            (1027.6, 8.93),
            (1464.3, 6.27),
            (809.2, 1.78),
        ),
    ),
    "resnet101": Table(
        outlines.resnet101,
        224,
        39.34,
        (
            (118.0, 2.61),
            (667.9, 12.44),
            (1027.6, 8.93),
            (5176.6, 21.63),
            (809.2, 1.78),
        ),
    ),
    "resnet152": Table(
        outlines.resnet152,
        224,
        39.34,
        (
            (118.0, 2.61),
            (667.9, 12.44),
            (1901.1, 16.16),
            (8015.3, 33.37),
            (809.2, 1.78),
        ),
    ),
    "densenet121": Table(
        outlines.densenet121,
        224,
        39.34,
        (
            (118.0, 2.61),
            (1143.2, 15.35),
            (815.7, 10.69),
            (651.9, 8.35),
            (104.4, 1.56),
        ),
    ),
    "densenet161": Table(
        outlines.densenet161,
        224,
        59.01,
        (
            (177.0, 3.91),
            (2572.2, 23.03),
            (1835.2, 16.03),
            (2680.6, 22.76),
            (460.6, 4.62),
        ),
    ),
    "densenet169": Table(
        outlines.densenet169,
        224,
        39.34,
        (
            (118.0, 2.61),
            (1143.2, 15.35),
            (815.7, 10.69),
            (995.5, 12.7),
            (285.8, 4.3),
        ),
    ),
    "resnest101": Table(
        outlines.resnest101,
        224,
        7.23,
        (
            (1408.9, 10.04),
            *_units((295.4, 7.23), (218.4, 5.22), 3),
            *_units((719.3, 7.93), (218.4, 2.61), 4),
            *_units((719.4, 3.97), (218.5, 1.31), 23),
            *_units((719.7, 1.98), (218.8, 0.66), 3),
        ),
    ),
    "maxvit_t": Table(
        outlines.maxvit_t,
        224,
        7.23,
        (
            (484.1, 3.21),
            (1082.2, 37.73),
            (926.5, 18.62),
            (2171.9, 20.46),
            (892.6, 4.67),
        ),
    ),
    "efficientnet_b0": Table(
        outlines.efficientnet_b0,
        224,
        3.61,
        (
            (10.8, 1.2),
            (10.0, 1.61),
            (54.9, 7.6),
            (37.9, 2.98),
            (43.6, 1.96),
            (86.1, 2.33),
            (91.5, 1.63),
            (29.5, 0.37),
            (20.1, 0.19),
        ),
    ),
    "efficientnet_b1": Table(
        outlines.efficientnet_b1,
        224,
        3.61,
        (
            (10.8, 1.2),
            (15.1, 2.81),
            (80.7, 10.54),
            (57.7, 4.2),
            (59.5, 2.58),
            (118.9, 3.18),
            (114.7, 2.0),
            (90.9, 0.99),
            (20.1, 0.19),
        ),
    ),
    "efficientnet_b2": Table(
        outlines.efficientnet_b2,
        224,
        3.61,
        (
            (10.8, 1.2),
            (15.1, 2.81),
            (80.7, 10.54),
            (73.7, 4.71),
            (73.8, 2.91),
            (136.5, 3.43),
            (133.6, 2.16),
            (109.1, 1.08),
            (24.3, 0.21),
        ),
    ),
    "efficientnet_lite0": Table(
        outlines.efficientnet_lite0,
        224,
        3.61,
        (
            (10.8, 1.2),
            (10.0, 2.61),
            (54.9, 9.26),
            (37.9, 3.64),
            (43.5, 2.48),
            (86.0, 3.1),
            (91.2, 2.06),
            (29.4, 0.5),
            (20.1, 0.19),
        ),
    ),
    "inception_v3": Table(
        outlines.inception_v3,
        299,
        6.39,
        (
            (19.2, 1.42),
            (199.1, 1.38),
            (398.3, 3.11),
            (27.3, 0.85),
            (696.9, 2.17),
            (312.3, 1.14),
            (338.7, 1.22),
            (348.1, 1.22),
            (401.9, 0.67),
            (374.1, 0.89),
            (487.7, 1.0),
            (487.7, 1.0),
            (617.9, 1.11),
            (291.0, 0.51),
            (322.4, 0.42),
            (388.5, 0.42),
        ),
    ),
}
"""Network -> its table."""

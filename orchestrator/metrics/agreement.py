"""Agreement of judges: whether two of them say the same of an image, and how often one is refuted.

Acceptances are (N,) of 0 and 1.
"""

from torch import Tensor


def agreement(one: Tensor, other: Tensor) -> Tensor:
    """Return for each image whether both accept it or both refuse it, (N,) float64 of 0 and 1."""
    return (one == other).double()


def kappa(one: Tensor, other: Tensor) -> float | None:
    """Return Cohen's kappa (Cohen 1960) of acceptances (N,): agreement beyond that of judges who accept as
    often, but at random.

    1 is full agreement, 0 that of chance. None without images, and where both accept all or both refuse all.
    """
    if not len(one):
        return None
    shares = float(one.double().mean()), float(other.double().mean())
    by_chance = shares[0] * shares[1] + (1.0 - shares[0]) * (1.0 - shares[1])
    if by_chance == 1.0:
        return None
    return (float(agreement(one, other).mean()) - by_chance) / (1.0 - by_chance)

"""LoFt: a layer of low rank with tanh before the logits (Yu et al., arXiv 2410.05814), `config.Loft`.

Features f -> batch norm -> linear to `rank` units -> tanh -> linear to k logits; the loss is cross-entropy.
The paper has the linear layer, tanh and ranks about 50; batch norm and biases are those of the released code.
Logits depend on `rank` numbers in (-1, 1), and a saturated tanh passes little gradient to an attack. Not
here: confidence adaptation, a loss to fine-tune with in the first version of the paper (CALoR).
"""

from torch import Tensor, nn


class LoftHead(nn.Module):
    """Features (N, ...) -> logits (N, k)."""

    def __init__(self, num_features: int, classes: int, rank: int, has_norm: bool = True) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(num_features) if has_norm else nn.Identity()
        self.neck = nn.Linear(num_features, rank)
        self.logits = nn.Linear(rank, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (N, k)."""
        return self.logits(self.neck(self.norm(features.flatten(1))).tanh())

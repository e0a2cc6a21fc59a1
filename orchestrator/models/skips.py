"""RoLSS: the last stage of a residual network without its skip connections (Koh et al., "On the Vulnerability
of Skip Connections to Model Inversion Attacks", ECCV 2024).

A block's output is its residual branch alone; what else it does, such as the last ReLU of a ResNet, stays.
The authors' code was not to be had; by a caller of it, their networks are told which stage goes without and
start from public weights of the whole network, as here. Another removal, in LoFt's code, multiplies the skip
by 0, keeps its projection without use and takes one block more than it is asked for; here the projection
goes, and the stage is the network's own. Not here: the authors' scaling factor, their training in two stages.
"""

from torch import Tensor, nn

from orchestrator.models.classifier import Classifier

NAMES = ("downsample", "shortcut")
"""What a block calls the projection on its skip: torchvision's and IR's."""


class NoSkip(nn.Module):
    """In place of a projection: nothing is added to the residual branch."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return 0, a scalar of the maps' type."""
        return maps.new_zeros(())


def leave_out_last_skips(network: Classifier) -> None:
    """Leave out the skip connections of the last stage and the weights on them, in place."""
    for place in network.last_stage:
        block = network.blocks[place]
        setattr(block, skip_name(block), NoSkip())
    network.last_stage = range(0)


def skip_name(block: nn.Module) -> str:
    """Return what a residual block calls the projection on its skip, which may be None."""
    return next(name for name in NAMES if hasattr(block, name))

"""DP-SGD: private training of the target model (Abadi et al., CCS 2016) on Opacus, `config.DpSgd`.

`prepared` changes the network once, before training and before loading. During training
`with_image_gradients` leaves a gradient for each image on its parameters; `private_optimizer` clips and sums
them and adds noise. The network stays the same object, names included. Noise is torch's, from its global
generator: repeatable, and no protection against an adversary with the seed.

Opacus is imported where it is used: importing it takes over the root logger.
"""

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from orchestrator.config import DpSgd
from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.models.classifier import Classifier

NUM_GROUPS = 32  # at most, as Opacus replaces batch norms (Wu and He, Group Normalization, 2018)


def prepared(network: Classifier) -> Classifier:
    """Replace batch norms, which mix the images of a batch, by group norms with the same weights, in place.

    Those of blocks that stay in evaluation mode are kept. Raise `Refused` for other frozen ones, which have
    no private form, and for trained layers with buffers.
    """
    fixed = tuple(f"blocks.{name}." for name in _names_of(network.blocks, network.fixed))
    for path, norm in list(network.named_modules()):
        if not isinstance(norm, _BatchNorm) or f"{path}.".startswith(fixed):
            continue
        if norm.affine and not norm.weight.requires_grad:
            rule = f"lets the frozen batch norm {path} absorb private images"
            reason = f"{rule}, which target.defense.dp cannot protect"
            raise Refused("target.freeze", "weights", reason, "set target.freeze to weights+statistics")
        network.set_submodule(path, _group_norm(norm))
    _require_image_gradients(network)
    return network


def with_image_gradients(model: nn.Module) -> nn.Module:
    """Hook the model, in place, and return it: backward passes in training mode, from a mean over the batch,
    leave `grad_sample` (N, ...) on every trainable parameter."""
    from opacus.grad_sample import GradSampleHooks
    from opacus.grad_sample.functorch import prepare_layer

    class Hooks(GradSampleHooks):
        """Hooks on the outputs of layers: a backward hook on a layer forbids changing its output in place,
        which residual networks do."""

        def add_hooks(self, **options: Any) -> None:
            for layer in self.iterate_submodules(self._module):
                if type(layer) not in self.GRAD_SAMPLERS:
                    prepare_layer(layer)  # for which Opacus has no formula of its own
                layer.register_forward_hook(self.listen)
            self.enable_hooks()

        def listen(self, layer: nn.Module, inputs: Any, output: Tensor) -> None:
            def capture(gradient: Tensor) -> None:
                self.capture_backprops_hook(layer, inputs, (gradient,), self.loss_reduction, self.batch_first)

            if layer.training and output.requires_grad:
                # Opacus reads the inputs of convolutions by raw position, in the order (N, C, H, W).
                self.capture_activations_hook(layer, [part.contiguous() for part in inputs], output)
                output.register_hook(capture)

    assert not any(hasattr(parameter, "grad_sample") for parameter in model.parameters()), "called twice"
    Hooks(model)
    return model


def private_optimizer(dp: DpSgd, optimizer: Optimizer, batch_size: int) -> Optimizer:
    """Wrap an optimiser of parameters with image gradients: its steps are private, its state is unchanged.

    `batch_size`, over all workers, divides the sum of gradients even where a batch is smaller. Of several
    workers the first adds the noise, and their gradients are averaged here.
    """
    from opacus.optimizers import DistributedDPOptimizer, DPOptimizer

    num_workers = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    optimizer.register_step_pre_hook(_before_step)
    return (DistributedDPOptimizer if num_workers > 1 else DPOptimizer)(
        optimizer,
        noise_multiplier=dp.noise_multiplier,
        max_grad_norm=dp.max_grad_norm,
        expected_batch_size=batch_size // num_workers,
    )


def epsilon(dp: DpSgd, sample_rate: float, steps: int) -> float:
    """Return epsilon at `dp.delta` after `steps` batches of a share 0..1 of the images (Renyi accountant).

    The accountant assumes independent batches that hold each image by its own coin (Poisson sampling). The
    epochs of this project shuffle instead, as is common; their own epsilon may be larger. Infinite without
    noise.
    """
    from opacus.accountants import RDPAccountant

    if dp.noise_multiplier == 0:
        return math.inf
    accountant = RDPAccountant()
    accountant.history = [(dp.noise_multiplier, sample_rate, steps)]
    with warnings.catch_warnings():
        # Ignored: the best order is the first or last one tried. Epsilon holds anyway.
        warnings.simplefilter("ignore")
        return accountant.get_epsilon(dp.delta)


def _names_of(blocks: nn.Sequential, places: range) -> list[str]:
    names = [name for name, _ in blocks.named_children()]
    return [names[place] for place in places]


def _require_image_gradients(network: nn.Module) -> None:
    """Raise `Refused` for trained layers with buffers, which Opacus cannot differentiate image by image."""
    for path, layer in network.named_modules():
        is_trained = any(parameter.requires_grad for parameter in layer.parameters(recurse=False))
        if is_trained and any(True for _ in layer.buffers()):
            what = f"layer {path} ({type(layer).__name__}), which keeps buffers"
            rule = f"has no gradient of single images for {what}"
            raise Refused("target.defense.dp", NO_VALUE, rule, "freeze it or choose another target.model")


def _group_norm(batch_norm: _BatchNorm) -> nn.GroupNorm:
    """Return a group norm with the weights of a batch norm."""
    channels = batch_norm.num_features
    groups = math.gcd(NUM_GROUPS, channels)
    if groups == channels:  # a group of one channel is constant where the image is one pixel
        groups = max(1, channels // 2)
    norm = nn.GroupNorm(groups, channels, batch_norm.eps, affine=False)
    norm.affine, norm.weight, norm.bias = batch_norm.affine, batch_norm.weight, batch_norm.bias
    return norm.train(batch_norm.training)


def _before_step(optimizer: Optimizer, *_: Any) -> None:
    """Copy gradients into their parameter's memory order, as fused optimisers walk both by raw position, and
    free those of the images before the next forward pass."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad.stride() != parameter.stride():
                parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)
            parameter.grad_sample = None

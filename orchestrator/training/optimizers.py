"""Optimisers and steps: the recipe's optimiser, its learning rate by epoch, its state as named tensors."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import unwrap
from types import MappingProxyType
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from orchestrator.config import Recipe
from orchestrator.training.world import World

AMI_BETAS = (0.5, 0.999)  # released code of Yang, Chang and Liang, for every network

KindT = TypeVar("KindT", bound=Optimizer)

Groups = Sequence[nn.Parameter] | Sequence[dict[str, Any]]
"""Parameters, or torch's groups of them, each with a learning rate `lr` if it has one of its own."""


def _eager(kind: type[KindT]) -> type[KindT]:
    """Return torch's optimiser without the wrappers for `torch.compile` around its methods: they import the
    compiler (about 150 MiB and 2 CPU s) into every process that trains, and nothing is compiled here."""
    names = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    methods = {name: unwrap(getattr(kind, name)) for name in names}
    methods["step"] = torch.no_grad()(unwrap(kind.step))
    return cast(type[KindT], type(kind.__name__, (kind,), methods))


Adam = _eager(torch.optim.Adam)
SGD = _eager(torch.optim.SGD)


def new_optimizer(parameters: Groups, recipe: Recipe) -> Optimizer:
    """Return the recipe's optimiser over the given parameters."""
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return SGD(parameters, lr=rate, momentum=recipe.momentum, weight_decay=decay, fused=True)
    is_ami = recipe.optimizer == "amsgrad"
    betas = AMI_BETAS if is_ami else (0.9, 0.999)
    return Adam(parameters, lr=rate, betas=betas, weight_decay=decay, amsgrad=is_ami, fused=True)


def learning_rate(recipe: Recipe, epoch: int, first: float | None = None) -> float:
    """Return the learning rate of an epoch (from 1): a tenth after each milestone.

    `first`: that of the first epoch; None takes the recipe's.
    """
    start = recipe.learning_rate if first is None else first
    return start * 0.1 ** sum(epoch > milestone for milestone in recipe.milestones)


class Step(Protocol):
    """What `fit` drives: optimiser steps on one batch after the other, and their state.

    Checkpoints, data order, curves, divergence and preemption are the loop's, for every step alike.
    """

    def begin(self, epoch: int, epochs: int) -> None:
        """Set the learning rates and other schedules of an epoch, from 1."""

    def train(self, inputs: Tensor, outputs: Tensor) -> dict[str, Tensor]:
        """Train on this worker's share of a batch, under the precision of the world, and leave the same
        weights on every worker. Return mean losses by name, detached scalars on the device; `loss` is one."""

    def state(self) -> dict[str, Tensor]:
        """Return by name what a checkpoint must hold besides the model's own state."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore `state`; raise `ValueError`, with nothing changed, if it is of another kind of step."""


class Descent:
    """One optimiser with its schedule, over those of the parameters that require gradients.

    A step with one network has one of these, a step with a generator and a critic has two, each with a recipe
    of its own. `adapt` (optimiser, batch size) -> optimiser is applied to the optimiser once. `rates`: those
    of the parameters whose first learning rate is another than the recipe's; they come last in the state.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        recipe: Recipe,
        adapt: Callable[[Optimizer, int], Optimizer] = lambda optimizer, batch_size: optimizer,
        rates: Mapping[nn.Parameter, float] = MappingProxyType({}),
    ) -> None:
        common = [one for one in parameters if one.requires_grad and one not in rates]
        self.parameters = [*common, *rates]
        self.recipe = recipe
        self.first_rates = [recipe.learning_rate, *rates.values()]
        own: list[dict[str, Any]] = [{"params": [one], "lr": rate} for one, rate in rates.items()]
        groups: Groups = [{"params": common}, *own] if own else common
        self.optimizer = adapt(new_optimizer(groups, recipe), recipe.batch_size)

    def begin(self, epoch: int) -> None:
        """Set the learning rates of an epoch, from 1."""
        for group, first in zip(self.optimizer.param_groups, self.first_rates, strict=True):
            group["lr"] = learning_rate(self.recipe, epoch, first)

    def clear(self) -> None:
        """Drop the gradients of the last step."""
        self.optimizer.zero_grad(set_to_none=True)

    def descend(self, loss: Tensor, world: World) -> None:
        """Take one step down a scalar loss; other parameters that it depends on receive no gradient."""
        self.clear()
        loss.backward(inputs=self.parameters)
        self.step(world)

    def step(self, world: World) -> None:
        """Take one step down the gradients that a backward pass left, averaged over the workers."""
        world.average([parameter.grad for parameter in self.parameters if parameter.grad is not None])
        self.optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Return the optimiser's state, named `<position of the parameter>.<field>`."""
        states = self.optimizer.state_dict()["state"]
        return {f"{number}.{name}": t for number, state in states.items() for name, t in state.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore `state`; raise `ValueError`, with nothing changed, if it is another optimiser's."""
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            number, _, field = name.partition(".")
            if not number.isdigit() or int(number) >= len(self.parameters):
                raise ValueError(f"no parameter of this optimiser is called {number}")
            parameter = self.parameters[int(number)]
            states.setdefault(int(number), {})[field] = _laid_out_like(parameter, tensor)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": states})


def joint_state(descents: Mapping[str, Descent]) -> dict[str, Tensor]:
    """Return the state of several optimisers, named `<optimiser>.<position>.<field>`."""
    return {f"{key}.{name}": t for key, descent in descents.items() for name, t in descent.state().items()}


def load_joint_state(descents: Mapping[str, Descent], tensors: Mapping[str, Tensor]) -> None:
    """Restore `joint_state`; raise `ValueError`, with nothing changed, if it is of other optimisers."""
    parts: dict[str, dict[str, Tensor]] = {key: {} for key in descents}
    for name, tensor in tensors.items():
        key, _, rest = name.partition(".")
        if key not in parts:
            raise ValueError(f"no optimiser is called {key}")
        parts[key][rest] = tensor
    for key, part in parts.items():
        descents[key].load(part)


def _laid_out_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """Copy into the parameter's memory order: the fused optimiser walks both by raw position."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)

"""Plain loops: steps as the authors' scripts write them, in float32, in torch's default memory layout.

AMI: one PIL image and `ToTensor` for each sample, F(x) recomputed in each step, Adam with AMSGrad. TL-DMI:
SGD with momentum. Hinge prior and GMI: the same steps as ours, without any change of layout or optimiser.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import ToTensor

from orchestrator import config
from orchestrator.attacks.inverter import Inverter
from orchestrator.attacks.prior import Adversaries, decay_after

NewOptimizer = Callable[[Any], Optimizer]


class Batches(Dataset):
    """Batches of images in their order, over and over, each image from PIL."""

    def __init__(self, images: Tensor, labels: Tensor, batch_size: int, device: torch.device) -> None:
        self.images: np.ndarray = images.permute(0, 2, 3, 1).numpy()
        self.labels, self.transform, self.device = labels, ToTensor(), device
        own = torch.Generator()  # it draws, and the step's draws must be ours
        self._loader: DataLoader[Any] = DataLoader(self, batch_size, generator=own)
        self._left: Iterator[Any] = iter(())

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels = self.images[index]
        return self.transform(Image.fromarray(pixels.squeeze())), self.labels[index]

    def first(self) -> tuple[Tensor, Tensor]:
        """Return the first batch; `next` does not move."""
        images, labels = next(iter(self._loader))
        return images.to(self.device), labels.to(self.device)

    def next(self) -> tuple[Tensor, Tensor]:
        """Return images (N, C, S, S) in [0, 1] and labels (N,) on the device."""
        batch = next(self._left, None)
        if batch is None:
            self._left = iter(self._loader)
            batch = next(self._left)
        images, labels = batch
        return images.to(self.device), labels.to(self.device)


def optimizer(recipe: config.Recipe) -> NewOptimizer:
    """Return the constructor of the recipe's optimiser, not fused."""
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return lambda parameters: torch.optim.SGD(
            parameters, lr=rate, momentum=recipe.momentum, weight_decay=decay
        )
    return lambda parameters: torch.optim.Adam(parameters, lr=rate, betas=(0.5, 0.999), amsgrad=True)


def flop(*losses: tuple[Callable[[], Tensor], Iterable[Tensor]]) -> float:
    """Return the operations of losses and of their gradients by the given tensors; a multiply-add is two."""
    with torch.random.fork_rng(devices=[]), FlopCounterMode(display=False) as counter:
        for loss, variables in losses:
            trained = [one for one in variables if one.requires_grad]
            loss().backward(inputs=trained)
    return float(counter.get_total_flops())


class ClassifierStep:
    """Cross-entropy of a classifier."""

    def __init__(self, network: nn.Module, new: NewOptimizer, device: torch.device) -> None:
        self.network = network.to(device).train()
        self.optimizer = new(self.network.parameters())

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch."""
        return functional.cross_entropy(self.network(images), labels)

    def take(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take one step; return its loss."""
        self.optimizer.zero_grad()
        loss = self.loss(images, labels)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


class InverterStep:
    """Squared error of an inverter whose inputs F computes in every step."""

    def __init__(self, target: nn.Module, network: nn.Module, offset: float, new: NewOptimizer) -> None:
        self.target, self.network, self.offset = target, network.train(), offset
        self.optimizer = new(network.parameters())

    def loss(self, images: Tensor, *, has_scores: bool = False) -> Tensor:
        """Return the loss of a batch; with `has_scores` of uniform scores, without asking F."""
        if has_scores:
            classes = self.network[0].in_channels  # type: ignore[index]
            scores = torch.full((len(images), classes), 1.0 / classes, device=images.device)
        else:
            with torch.no_grad():
                scores = torch.softmax(self.target(images), dim=1)
        encoded = encode(scores, self.offset)[:, :, None, None]
        return functional.mse_loss(self.network(encoded), images)

    def take(self, images: Tensor) -> Tensor:
        """Take one step; return its loss."""
        self.optimizer.zero_grad()
        loss = self.loss(images)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def inverter(ours: Inverter, channels: int) -> nn.Module:
    """Return the network of an inverter of PyTorch's own layers with the same weights, by position."""
    layers: list[nn.Module] = []
    state = [tensor.detach().clone() for tensor in ours.network.state_dict().values()]
    kernels = [tensor for tensor in state if tensor.dim() == 4]
    counts = [kernels[0].shape[0], *(kernel.shape[1] for kernel in kernels[:-1])]
    for place, (before, after) in enumerate(pairwise(counts)):
        stride, padding = (1, 0) if place == 0 else (2, 1)
        layers += [nn.ConvTranspose2d(before, after, 4, stride, padding), nn.BatchNorm2d(after), nn.Tanh()]
    network = nn.Sequential(*layers, nn.ConvTranspose2d(counts[-1], channels, 4, 2, 1), nn.Sigmoid())
    network.load_state_dict(dict(zip(network.state_dict(), state, strict=True)))
    return network.to(state[0].device)


def encode(scores: Tensor, offset: float) -> Tensor:
    """Encode scores (N, k) as the released script does, all of them kept."""
    values, positions = torch.topk(scores, scores.shape[1])
    values = torch.clamp(torch.log(values), min=-1000) + offset
    values = values + functional.relu(-values.min(1, keepdim=True)[0])
    return torch.zeros_like(scores).scatter_(1, positions, values)


class HingeStep:
    """A step of the critic and one of the generator, whose weights are averaged."""

    def __init__(
        self,
        model: Adversaries,
        prior: config.Prior,
        augment: Callable[[Tensor], Tensor],
        device: torch.device,
    ) -> None:
        self.model, self.prior, self.augment = model.to(device).train(), prior, augment
        rates = {"generator": prior.learning_rate, "critic": prior.critic_learning_rate}
        self.optimizers = {
            name: torch.optim.Adam(model.get_submodule(name).parameters(), lr=rate, betas=prior.betas)
            for name, rate in rates.items()
        }
        self.num_steps = 0

    def take(self, images: Tensor) -> Tensor:
        """Take both steps; return the critic's loss."""
        critic_loss = self.critic_loss(images)
        self._step("critic", critic_loss)
        self._step("generator", self.generator_loss(images))
        self.num_steps += 1
        decay = decay_after(self.num_steps, self.prior.average)
        states = self.model.average.state_dict(), self.model.generator.state_dict()
        with torch.no_grad():
            for kept, new in zip(*(state.values() for state in states), strict=True):
                kept.copy_(decay * kept + (1 - decay) * new if kept.is_floating_point() else new)
        return critic_loss.detach()

    def critic_loss(self, images: Tensor) -> Tensor:
        """Return the hinge loss of the critic on real and generated images."""
        with torch.no_grad():
            generated = self.model.generated(images)
        on_real, on_fake = self.model.critic(self.augment(torch.cat([images, generated]))).chunk(2)
        return functional.relu(1.0 - on_real).mean() + functional.relu(1.0 + on_fake).mean()

    def generator_loss(self, images: Tensor) -> Tensor:
        """Return how unreal the critic takes generated images to be."""
        return -self.model.critic(self.augment(self.model.generated(images))).mean()

    def _step(self, name: str, loss: Tensor) -> None:
        self.model.zero_grad()
        loss.backward()
        self.optimizers[name].step()


class GmiStep:
    """Nesterov's descent on latents; as in the released code the networks' gradients are computed too."""

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        target: nn.Module,
        starts: Tensor,
        classes: Tensor,
        attack: config.GmiAttack,
    ) -> None:
        self.generator, self.critic, self.target, self.attack = generator, critic, target, attack
        self.latents, self.classes = starts.clone().requires_grad_(), classes.to(starts.device)
        self.velocity = torch.zeros_like(starts)

    def loss(self) -> Tensor:
        """Return the mean loss of the images."""
        images = self.generator(self.latents)
        identity = functional.cross_entropy(self.target(images), self.classes)
        return self.attack.identity_weight * identity - self.critic(images).mean()

    def take(self) -> Tensor:
        """Take one step; return the loss before it."""
        for module in (self.generator, self.critic, self.target):
            module.zero_grad()
        self.latents.grad = None
        loss = self.loss()
        loss.backward()
        gradient = self.latents.grad
        assert gradient is not None
        before = self.velocity.clone()
        with torch.no_grad():
            self.velocity = self.attack.momentum * self.velocity - self.attack.learning_rate * gradient
            moved = (1 + self.attack.momentum) * self.velocity - self.attack.momentum * before
            self.latents += moved
            self.latents.clamp_(-self.attack.clip, self.attack.clip)
        return loss.detach()

"""Fisher information of a target's layers, for classifying and for being inverted (TL-DMI: Ho et al., CVPR
2024; supplement B.3, figures 4 and 5).

FI of a layer for a task of loss L is the mean over the layer's parameters of E[(dL/dtheta)^2], E over images.
Classification: L is the cross-entropy of a private image. Inversion: L is the distance between what an attack
makes and a private image of the class. How the former depends on theta is not printed; here a search does by
its last update alone, w_t = w_(t-1) - eta * grad_w L_attack(w; theta) with w_(t-1) constant, and a trained
inverter by the scores it is given.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp, vmap
from torch.nn import functional

from orchestrator import config
from orchestrator.attacks.inverter import Inverter
from orchestrator.attacks.joint import Pair
from orchestrator.attacks.mia import cost
from orchestrator.attacks.pixel_search import CPU_BATCH, first_image
from orchestrator.defenses.mid import MidHead
from orchestrator.models.classifier import Classifier
from orchestrator.threat import released_length
from orchestrator.training.pairs import as_unit

Logits = Callable[[Tensor], Tensor]
"""Images (N, C, S, S) in [0, 1] -> the target's logits (N, k)."""

Step = Callable[[Logits, Tensor, Tensor], Tensor]
"""(logits, w_(t-1) (N, ...), classes (N,)) -> w_t (N, ...), each row for itself. Its gradients come from
`torch.func.grad`, which can be differentiated again here. It keeps no state: a momentum is a part of w."""

Decode = Callable[[Tensor], Tensor]
"""w (N, ...) -> images (N, C, S, S) in [0, 1], each row for itself: a generator in evaluation mode."""

Distance = Callable[[Tensor, Tensor], Tensor]
"""Two batches of images (N, C, S, S) in [0, 1] -> their distances (N,)."""

Make = Callable[..., Tensor]
"""Theta and rows (N, ...) of some tensors -> what is made of each row (N, ...)."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""What is made (N, ...) and what is wanted (N, ...) -> a loss for each row (N,)."""

CHUNK = 8  # rows differentiated together by theta: each holds a gradient as large as the network


@dataclass(frozen=True)
class Profile:
    """Fisher information of each layer, early to late."""

    names: tuple[str, ...]
    values: tuple[float, ...]

    @property
    def normalised(self) -> tuple[float, ...]:
        """Shares that sum to 1; NaN where no layer has any information, as when a step changes nothing."""
        total = sum(self.values)
        return tuple(value / total if total else float("nan") for value in self.values)

    def early_share(self, boundaries: tuple[int, int] | None = None) -> float:
        """Return the share of the first layers: `names[:a]` of boundaries (a, b), else a third by order."""
        end = boundaries[0] if boundaries else max(1, round(len(self.names) / 3))
        return sum(self.normalised[:end])


@dataclass(frozen=True, eq=False)
class Search:
    """An attack that descends: one row for each image that it makes."""

    step: Step
    start: Tensor  # w_0, (N, ...)
    classes: Tensor  # (N,)
    decode: Decode = torch.Tensor.contiguous  # a search among images decodes nothing


def squared_l2(images: Tensor, originals: Tensor) -> Tensor:
    """Return the squared Euclidean distance of each pair, summed over pixels, (N,)."""
    return (images - originals).square().flatten(1).sum(1)


def l1(images: Tensor, originals: Tensor) -> Tensor:
    """Return the sum over pixels of absolute differences of each pair, (N,)."""
    return (images - originals).abs().flatten(1).sum(1)


DISTANCES: Mapping[str, Distance] = {"l2": squared_l2, "l1": l1}
"""Distances that need no network; the caller gives LPIPS, with its weights."""


def parameterised(network: nn.Module) -> dict[str, tuple[str, ...]]:
    """Map the path of each convolution and linear layer, early to late, to the names of its parameters.

    Batch norms and their like belong to no layer.
    """
    found = {
        path: tuple(f"{path}.{name}" for name, _ in module.named_parameters())
        for path, module in network.named_modules()
        if path and isinstance(module, nn.Conv2d | nn.Linear)
    }
    if not found:
        raise ValueError(f"{type(network).__name__} holds no convolution and no linear layer to profile.")
    return found


def layer_thirds(network: Classifier) -> tuple[int, int]:
    """Return `network.layer_groups` in layers instead of blocks, as `Profile.early_share` takes it."""
    blocks = [name for name, _ in network.blocks.named_children()]
    paths = [path.split(".") for path in parameterised(network)]
    places = [blocks.index(path[1]) for path in paths if path[0] == "blocks"]
    first, middle = (sum(place < end for place in places) for end in network.layer_groups)
    return first, middle


def classification_profile(
    network: nn.Module, images: Tensor, labels: Tensor, *, chunk: int = CHUNK
) -> Profile:
    """Profile the cross-entropy of private images (N, C, S, S), uint8 or in [0, 1], and their classes (N,).

    A chunk of 1 takes them one by one, for networks with layers that `torch.func` does not know.
    """
    target = _Target(network)
    entropies = partial(functional.cross_entropy, reduction="none")
    return target.profiles(target.logits, (images,), {"": entropies}, labels, chunk)[""]


def inverter_profiles(
    network: nn.Module,
    inverter: Inverter,
    release: config.Release,
    images: Tensor,
    *,
    distances: Mapping[str, Distance],
    chunk: int = CHUNK,
) -> dict[str, Profile]:
    """Profile reconstructions of private images (N, C, S, S) from their released scores, for each distance.

    Which scores are released is constant, and rounding, which passes no gradient, is left out. Raise
    `ValueError` if labels alone are released: nothing can be differentiated.
    """
    if release.labels_only:
        raise ValueError(
            "release.labels_only=True leaves nothing to differentiate: a label is constant near theta; "
            "profile a release of scores."
        )
    target = _Target(network)
    frozen = copy.deepcopy(inverter).to(target.device).eval().requires_grad_(False)

    def reconstruct(logits: Tensor) -> Tensor:
        pair = Pair(target.network, frozen, released_length(logits.shape[1], release), release.renormalised)
        return frozen.network(pair.encode(logits))

    losses = {name: partial(_decoded, reconstruct, one) for name, one in distances.items()}
    return target.profiles(target.logits, (images,), losses, images, chunk)


def search_profiles(
    network: nn.Module,
    search: Search,
    originals: Tensor,
    *,
    iterations: Sequence[int],
    distances: Mapping[str, Distance],
    chunk: int = CHUNK,
) -> dict[tuple[str, int], Profile]:
    """Profile a search at some of its iterations, counted from 1, for each distance.

    Originals (N, C, S, S), uint8 or in [0, 1], are one private image of the class of each row. The search
    goes on to the last iteration named; where it would stop early or what it would choose plays no part.
    Raise `ValueError` without iterations or with one below 1.
    """
    if not iterations or min(iterations) < 1:
        raise ValueError(f"iterations={list(iterations)} must name one or more, counted from 1.")
    target = _Target(network)

    def update(theta: Mapping[str, Tensor], latents: Tensor, classes: Tensor) -> Tensor:
        return search.step(partial(target.logits, theta), latents, classes)

    losses = {name: partial(_decoded, search.decode, one) for name, one in distances.items()}
    latents, found = search.start, {}
    for iteration in range(1, max(iterations) + 1):
        rows = (latents, search.classes)
        if iteration in iterations:
            found[iteration] = target.profiles(update, rows, losses, originals, chunk)
        if iteration < max(iterations):
            latents = target.made(update, rows)
    return {(name, iteration): found[iteration][name] for name in distances for iteration in iterations}


def mia_search(attack: config.MiaAttack, classes: Tensor, shape: tuple[int, int, int]) -> Search:
    """Return the descent of `attacks.mia` for classes (N,), among images of a shape (C, S, S)."""
    if attack.process != "none":
        raise ValueError(
            f"attack.process={attack.process} is not a part of the update that is differentiated; "
            "profile the attack with process: none."
        )
    level = attack.start
    if isinstance(level, str):
        raise ValueError(
            f"attack.start={level} is an image that is not here; profile the attack from a grey."
        )
    starts = [first_image(level, attack.noise, shape, attack.seed, label) for label in classes.tolist()]

    def step(logits: Logits, images: Tensor, classes: Tensor) -> Tensor:
        def total(images: Tensor) -> Tensor:
            return cost(attack, functional.cross_entropy(logits(images), classes, reduction="none")).sum()

        return (images - attack.learning_rate * grad(total)(images)).clamp(0.0, 1.0)

    return Search(step, torch.stack(starts), classes)


SEARCHES: Mapping[str, Callable[..., Search]] = {"mia": mia_search}
"""Attack with the profile `updates` -> its descent, from settings, classes (N,) and image shape (C, S, S)."""


def _decoded(decode: Decode, distance: Distance, made: Tensor, originals: Tensor) -> Tensor:
    """Return the distances (N,) of what is decoded from the originals."""
    return distance(decode(made), originals)


class _Target:
    """A private copy of a network in evaluation mode, as a function of its layers' parameters theta."""

    def __init__(self, network: nn.Module) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        for module in self.network.modules():
            if isinstance(module, MidHead):  # its mean: each pass would draw other noise
                module.noise_at_inference = False
        self.layers = parameterised(self.network)
        named = dict(self.network.named_parameters())
        self.theta = {name: named[name].detach() for names in self.layers.values() for name in names}
        self.device = next(self.network.parameters()).device

    def logits(self, theta: Mapping[str, Tensor], images: Tensor) -> Tensor:
        """Return logits (N, k) of images (N, C, S, S)."""
        return functional_call(self.network, dict(theta), (images,))

    def made(self, make: Make, rows: tuple[Tensor, ...]) -> Tensor:
        """Return what is made of all rows (N, ...), as constants."""
        batches = zip(*(tensor.split(CPU_BATCH) for tensor in rows), strict=True)
        return torch.cat([make(self.theta, *self._placed(batch)).detach() for batch in batches])

    def profiles(
        self, make: Make, rows: tuple[Tensor, ...], losses: Mapping[str, Loss], wanted: Tensor, chunk: int
    ) -> dict[str, Profile]:
        """Profile each loss of what is made of rows (N, ...) and of what is wanted (N, ...).

        By the chain rule: dloss/dmade of a batch comes first, so that a loss may use all that
        autograd supports, then dmade/dtheta row by row.
        """
        squares = torch.zeros(len(losses), len(self.layers), dtype=torch.float64)
        each = self._by_autograd if chunk == 1 else self._by_vmap
        for batch in zip(*(tensor.split(chunk) for tensor in (*rows, wanted)), strict=True):
            *inputs, targets = self._placed(batch)
            made = make(self.theta, *inputs).detach().requires_grad_()
            slopes = [torch.autograd.grad(loss(made, targets).sum(), made)[0] for loss in losses.values()]
            squares += each(make, inputs, slopes).cpu()
        sizes = [sum(self.theta[name].numel() for name in names) for names in self.layers.values()]
        means = (squares / torch.tensor(sizes) / len(wanted)).tolist()
        return {
            name: Profile(tuple(self.layers), tuple(row)) for name, row in zip(losses, means, strict=True)
        }

    def _placed(self, batch: Sequence[Tensor]) -> list[Tensor]:
        return [as_unit(part.to(self.device)) for part in batch]

    def _by_autograd(self, make: Make, inputs: Sequence[Tensor], slopes: Sequence[Tensor]) -> Tensor:
        """Return the sum of each layer's squared gradients of one row, (losses, layers)."""
        theta = {name: value.detach().requires_grad_() for name, value in self.theta.items()}
        made, leaves = make(theta, *inputs), list(theta.values())
        found = []
        for slope in slopes:
            gradients = torch.autograd.grad(made, leaves, slope, retain_graph=True, materialize_grads=True)
            found.append(self._squares(dict(zip(theta, gradients, strict=True))))
        return torch.stack(found)

    @torch.no_grad()  # which vjp does not heed: no graph but its own is kept
    def _by_vmap(self, make: Make, inputs: Sequence[Tensor], slopes: Sequence[Tensor]) -> Tensor:
        """Return the sum over rows of each layer's squared gradients, (losses, layers)."""

        def one(slopes: Sequence[Tensor], *row: Tensor) -> Tensor:
            pull = vjp(lambda theta: make(theta, *(part[None] for part in row)), self.theta)[1]
            return torch.stack([self._squares(pull(slope[None])[0]) for slope in slopes])

        return vmap(one)(slopes, *inputs).sum(0)

    def _squares(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of each layer's squared gradients, float64 (layers,)."""
        # In float32 the square of 1e-23 is 0: where scores saturate, whole layers would vanish.
        sums = {name: gradient.double().square().sum() for name, gradient in gradients.items()}
        return torch.stack(
            [torch.stack([sums[name] for name in names]).sum() for names in self.layers.values()]
        )

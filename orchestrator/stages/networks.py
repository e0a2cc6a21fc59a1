"""Networks that several stages build, load or query: classifiers, the inverter G, a black box."""

from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from orchestrator.attacks import build_attack
from orchestrator.attacks.inverter import Inverter
from orchestrator.attacks.latent import GenerativePrior
from orchestrator.attacks.prior import Adversaries
from orchestrator.config import AttackSpec, Data, Judge, Model, Prior, Release, Target
from orchestrator.datasets.gathered import Images
from orchestrator.defenses.shield import mover
from orchestrator.metrics import perceptual
from orchestrator.metrics.yardsticks import GREY
from orchestrator.models import GENERATORS
from orchestrator.models.build import AnyGenerator, build_classifier, build_critic, build_generator
from orchestrator.models.classifier import Classifier
from orchestrator.models.face_descriptor import SIDE, FaceDescriptor, face_descriptor
from orchestrator.models.framing import Framed
from orchestrator.models.public import HEAD, renamed
from orchestrator.models.public_generators import public_generator
from orchestrator.stages.io import Inputs, read_npy
from orchestrator.stages.kept import kept
from orchestrator.threat import BlackBox, truncate_rows
from orchestrator.training.loop import predict
from orchestrator.training.pairs import Rows, as_unit, concatenated
from orchestrator.training.seeds import seeded

QUERY_BATCH = 512  # images made float at a time
JUDGED_FEATURES, JUDGED_LABELS = "features_train.npy", "labels_train.npy"
"""Files of the stage `judge`: its features of every class's training images, flattened, and their classes."""

MEAN_FEATURES = "mean_features.npy"
"""File of the stage `answers`: the mean of F's penultimate features over public images, float32 (d,)."""

CHOSEN = "chosen.safetensors"
"""File of a prior that learns images which F's answers chose, since F may answer otherwise when it is asked
again: `places` of the public images and their `classes`, (N,) each, and which of these pairs were `held_out`,
(n,), all int64."""


class AtTruncation(nn.Module):
    """An inverter whose inputs all have the same truncation m: released scores (N, k) -> images."""

    def __init__(self, inverter: Inverter, m: int) -> None:
        super().__init__()
        self.inverter, self.m = inverter, m

    def forward(self, scores: Tensor) -> Tensor:
        """Reconstruct images (N, C, S, S) in [0, 1] from released scores (N, k)."""
        return self.inverter(scores, self.m)


class AtRandomTruncations(nn.Module):
    """An inverter that is trained for every truncation: full scores (N, k) -> images.

    In training each row is truncated to an m drawn from 1..k by torch's generator; else row i of a batch to
    1 + i mod k, so that held-out images choose the epoch by all truncations alike.
    """

    def __init__(self, inverter: Inverter) -> None:
        super().__init__()
        self.inverter = inverter

    def forward(self, scores: Tensor) -> Tensor:
        """Reconstruct images (N, C, S, S) in [0, 1] from full scores (N, k)."""
        number, k = scores.shape
        if self.training:
            lengths = torch.randint(1, k + 1, (number,), device=scores.device)
        else:
            lengths = torch.arange(number, device=scores.device) % k + 1
        return self.inverter(truncate_rows(scores, lengths), k)  # what is 0 is not encoded as released


def new_classifier(model: Model, classes: int, data: Data, seed: int, *, resizes: bool = False) -> Any:
    """Build a classifier whose first weights depend on the seed alone; an evaluation model resizes images to
    its side."""
    channels, image_size = data.channels, data.image_size
    return seeded(
        lambda: build_classifier(
            model, classes=classes, channels=channels, image_size=image_size, resizes=resizes
        ),
        seed,
    )


def start_from(network: Classifier, public: Mapping[str, Tensor], name: str) -> None:
    """Copy public weights into a classifier's body, in place; its head keeps its first weights.

    Raise `Refused`, which calls the weights `name`, if they do not fit the body.
    """
    state = renamed(network, public, name=name)
    body = {name: tensor for name, tensor in state.items() if not name.startswith(HEAD)}
    network.load_state_dict(network.state_dict() | body)


class _WithFeatures(nn.Module):
    """A classifier whose outputs are what its head reads, beside its logits, (N, d + K)."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        features = self.network.features(images)
        return torch.cat([features.flatten(1), self.network.head(features)], dim=1)


def stored_classifier(
    inputs: Inputs, role: str, model: Model, classes: int, data: Data, *, resizes: bool = False
) -> Classifier:
    """Return the trained classifier that an input stage left, on the device, in evaluation mode."""
    return _classifier(inputs.read(role, "model.safetensors"), inputs, model, classes, data, resizes=resizes)


def _classifier(
    file: bytes, inputs: Inputs, model: Model, classes: int, data: Data, *, resizes: bool
) -> Classifier:
    network: Classifier = new_classifier(model, classes, data, 0, resizes=resizes)
    network.load_state_dict(load_tensors(file))
    return network.to(inputs.world.device).eval()


def stored_judge(inputs: Inputs, data: Data, judge: Judge, classes: int) -> Classifier:
    """Return the evaluation model of all `classes` of the private set, on the device, in evaluation mode.

    Stages that run in one process share it, so it is only predicted with.
    """
    file = inputs.read("judge", "model.safetensors")
    settings = (judge.model.text, data.text, classes, str(inputs.world.device))

    def loaded() -> Classifier:
        return _classifier(file, inputs, judge.model, classes, data, resizes=True)

    return kept("judge", [file], settings, loaded)


def features_of(network: Classifier, images: Rows, device: torch.device) -> Tensor:
    """Return what the head of a classifier reads of images (N, C, S, S), float32 (N, ...) on the CPU."""
    return predict(network.blocks, images, device)


def features_and_logits(network: Classifier, images: Rows, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return what the head of a classifier reads of images (N, C, S, S), (N, d), and its logits (N, K) of one
    pass, float32 on the CPU."""
    both = predict(_WithFeatures(network), images, device)
    return both[:, : network.num_features], both[:, network.num_features :]


def judged_training(inputs: Inputs, classes: Tensor) -> Tensor:
    """Return the evaluation model's features, (N, d), of the training images of some of its classes (k,), in
    stored order."""
    labels = read_npy(inputs, "judge", JUDGED_LABELS)
    return read_npy(inputs, "judge", JUDGED_FEATURES)[torch.isin(labels, classes)]


def stored_recogniser(inputs: Inputs) -> FaceDescriptor:
    """Return the recogniser that others trained, on the device of this process."""
    weights = inputs.weights("recogniser")
    assert weights is not None  # the plan has them
    return face_descriptor(weights).to(inputs.world.device)


def described(network: FaceDescriptor, images: Images, device: torch.device) -> Tensor:
    """Return descriptors (N, d) of images (N, C, S, S), uint8 or in [0, 1]."""
    return perceptual.features_of(network, images, SIDE, device, normalise="descriptor")


def descriptor_files(part: str) -> tuple[str, str]:
    """Return the names of the files with descriptors (N, d) and labels (N,) int64 of a part's photographs."""
    return f"descriptors_{part}.npy", f"labels_{part}.npy"


def new_inverter(attack: AttackSpec, data: Data, target: Target, named: Tensor | None = None) -> Any:
    """Build the inverter of an attack that leaves one, for all classes or for those `named`, (n,) int64;
    first weights depend on the attack's seed and the number of classes alone."""
    shapes = {"classes": target.classes, "channels": data.channels, "image_size": data.image_size}
    return seeded(lambda: build_attack(attack, **shapes, named=named), attack.seed)


def stored_inverter(inputs: Inputs, data: Data, target: Target, attack: AttackSpec) -> Inverter:
    """Return the inverter that the attack's stage left, on the CPU."""
    state = load_tensors(inputs.read("attack", "inverter.safetensors"))
    inverter: Inverter = new_inverter(attack, data, target, state.get("named"))
    inverter.load_state_dict(state)
    return inverter


def new_adversaries(prior: Prior, data: Data, classes: int = 0) -> Adversaries:
    """Build a generator and its critic; first weights depend on the prior's seed alone.

    `classes` are those of the target that the prior learns from, if it does.
    """

    def build() -> Adversaries:
        generator = build_generator(prior, classes=classes, **_shapes(data))
        return Adversaries(generator, build_critic(prior, classes=classes, **_shapes(data)))

    adversaries: Any = seeded(build, prior.seed)
    return adversaries


def stored_generator(inputs: Inputs, data: Data, prior: Prior, classes: int = 0) -> AnyGenerator:
    """Return the prior that the stage `prior` left, latents (N, `latent_size`) -> images (N, C, S, S) in
    [0, 1], on the device, in evaluation mode, with weights that require no gradient.

    With `weights` that is the generator that others trained. A conditional one also reads which of the
    target's k `classes` each image is to be, (N,).
    """
    if prior.weights:
        return _brought(inputs, data, prior)
    generator: Any = seeded(lambda: build_generator(prior, classes=classes, **_shapes(data)), prior.seed)
    stored: AnyGenerator = _stored(inputs, generator, "generator")
    return stored


def _brought(inputs: Inputs, data: Data, prior: Prior) -> Any:
    """Return the generator of staged weights, its images as the data's."""
    public, name = inputs.weights("prior"), prior.weights
    assert public is not None  # the plan has them
    assert name is not None
    generator, side = public_generator(public, name)
    framed = Framed(generator, side, crop=prior.crop, **_shapes(data))
    return framed.to(inputs.world.device).eval()


def is_conditional(prior: Prior) -> bool:
    """Return whether its generator reads which class each image is to be."""
    return GENERATORS[prior.model.name].is_conditional


def generated(
    generator: AnyGenerator, prior: Prior, latents: Tensor, classes: Tensor, device: torch.device
) -> Tensor:
    """Return images (N, C, S, S) in [0, 1] of latents (N, d), of classes (N,) where the prior has them."""
    if not is_conditional(prior):
        return predict(generator, latents, device)
    return predict(_OfClasses(generator), torch.cat([latents, classes[:, None].float()], dim=1), device)


class _OfClasses(nn.Module):
    """A conditional generator whose classes are the last number of each latent (N, d + 1)."""

    def __init__(self, generator: AnyGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, rows: Tensor) -> Tensor:
        images: Tensor = self.generator(rows[:, :-1], rows[:, -1].long())
        return images


def stored_critic(inputs: Inputs, data: Data, prior: Prior, classes: int = 0) -> nn.Module:
    """Return the critic that the stage `prior` left, images (N, C, S, S) in [0, 1] -> how real each is, (N,),
    on the device, in evaluation mode, with weights that require no gradient.

    KEDMI's has logits of the target's k `classes`, (N, k), in their place, a conditional one reads which of
    them each image is of, (N,).
    """
    critic: Any = seeded(lambda: build_critic(prior, classes=classes, **_shapes(data)), prior.seed)
    stored: nn.Module = _stored(inputs, critic, "critic")
    return stored


def stored_prior(inputs: Inputs, data: Data, target: Target, prior: Prior) -> GenerativePrior:
    """Return what an adversary has of a prior: its generator, and its critic if it was trained here."""
    critic = None if prior.weights else stored_critic(inputs, data, prior, target.classes)
    return GenerativePrior(stored_generator(inputs, data, prior, target.classes), critic)


def _shapes(data: Data) -> Any:
    return {"channels": data.channels, "image_size": data.image_size}


def _stored(inputs: Inputs, network: nn.Module, name: str) -> Any:
    """Return one of a prior's networks as its stage left it."""
    network.load_state_dict(load_tensors(inputs.read("prior", f"{name}.safetensors")))
    return network.to(inputs.world.device).requires_grad_(False).eval()


def inverted(
    inputs: Inputs, data: Data, target: Target, attack: AttackSpec, scores: Tensor, m: int
) -> Tensor:
    """Return the images (N, C, S, S) in [0, 1] that the attack's inverter makes of released scores (N, k).

    Two stages of a trial ask for the same ones, so they are kept: they are not changed in place.
    """
    device = inputs.world.device

    def images() -> Tensor:
        inverter = stored_inverter(inputs, data, target, attack)
        return predict(AtTruncation(inverter, m).to(device), scores, device)

    settings = (data.text, target.classes, attack.text, m, str(device))
    return kept("inverted", [inputs.read("attack", "inverter.safetensors"), scores], settings, images)


def made_classes(inputs: Inputs, attack: AttackSpec, labels: Tensor) -> Tensor | None:
    """Return of which classes (N,) the adversary makes an image, bool (N,): those that it knows of; None for
    all of them."""
    if not attack.estimates_classes:
        return None
    return torch.isin(labels, load_tensors(inputs.read("attack", "inverter.safetensors"))["named"])


def grey_unless(is_made: Tensor | None, images: Tensor) -> Tensor:
    """Return images (N, C, S, S) in [0, 1] with a grey one in place of each that the adversary does not
    make, bool (N,); None for all of them."""
    return images if is_made is None else torch.where(is_made[:, None, None, None], images, GREY / 255.0)


def black_box(inputs: Inputs, network: nn.Module, release: Release, batch_size: int = 64) -> BlackBox:
    """Return the service of F that releases scores, moved by a shield where the release has one."""
    shield = release.shield
    moves = mover(shield, read_npy(inputs, "shield", "means.npy")) if shield else None
    return BlackBox(network, release, batch_size, moves)


def answers(box: BlackBox, images: Rows) -> Tensor:
    """Return released scores, float32 (N, k), of images (N, C, S, S) uint8, made float a part at a time."""
    return concatenated((box.query(as_unit(batch)) for batch in images.split(QUERY_BATCH)), len(images))

"""The experiment in the order it runs: pretrain, target, judge, predictions, victims, inversion, evaluation.

A stage is a function of the sub-specs it reads and of its inputs' files; it returns files and metrics and
knows neither store nor cluster. `run` calls the one that a planned stage names. All ranks of a worker group
enter a stage; only rank 0's result counts.
"""

import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from orchestrator.attacks import build_attack
from orchestrator.attacks.inverter import Inverter
from orchestrator.datasets import Dataset, selection
from orchestrator.metrics.classification import topk_accuracy
from orchestrator.metrics.pictures import pair_grid, png
from orchestrator.metrics.reconstruction import mse, psnr, ssim
from orchestrator.models import build_classifier
from orchestrator.models.freezing import Frozen, freeze
from orchestrator.plan import Stage
from orchestrator.spec import (
    Attack,
    Auxiliary,
    Data,
    Evaluation,
    Judge,
    Model,
    Pretrain,
    Release,
    Spec,
    Target,
)
from orchestrator.threat import released, released_length
from orchestrator.training import (
    Fitted,
    Pairs,
    World,
    as_unit,
    classification,
    derive_seed,
    fit,
    hold_out,
    predict,
    reconstruction,
    seeded,
)


@dataclass(frozen=True)
class Inputs:
    """What a running stage may touch."""

    world: World
    datasets: Callable[[str], Dataset]  # by name, verified
    read: Callable[[str, str], bytes]  # (role of an input stage, file name) -> verified bytes
    names: Mapping[str, str] = field(default_factory=dict)  # role (auxiliary, pretrain) -> data set name


@dataclass(frozen=True)
class Outputs:
    """What a stage leaves."""

    files: dict[str, bytes]
    metrics: dict[str, float]
    images_seen: int = 0


def run(stage: Stage, inputs: Inputs) -> tuple[Outputs, dict[str, float]]:
    """Run a planned stage; return its outputs and their cost in wall and CPU seconds."""
    function, reads = STAGES[stage.name]
    specs = {role: reads[role].model_validate(stage.specs[role]) for role in reads}
    wall, cpu = time.perf_counter(), time.process_time()
    with torch.random.fork_rng(devices=[]):
        outputs = function(inputs, **specs)
    cost = {
        "wall_seconds": round(time.perf_counter() - wall, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "images_seen": float(outputs.images_seen),
    }
    return outputs, cost


def pretrain(inputs: Inputs, data: Data, model: Model, pretrain: Pretrain) -> Outputs:
    """Train the target's network on public classes (TL-DMI, section 9)."""
    other = inputs.names.get("pretrain")
    if other is None:
        images = selection.public_images(inputs.datasets(data.dataset), data)
    else:
        images = selection.whole(inputs.datasets(other), data)
    network = _classifier(model, images.num_classes, data, pretrain.seed)
    pairs = Pairs(images.images, images.labels)
    fitted = fit(network, pairs, classification(), pretrain.recipe, pretrain.seed, inputs.world)
    return _trained("pretrain", network, fitted)


def target(inputs: Inputs, data: Data, target: Target) -> Outputs:
    """Train the victim F on its private classes; frozen layers keep the public weights."""
    private = inputs.datasets(data.dataset)
    images = selection.target_images(private, data, target.classes, "train")
    network = _classifier(target.model, target.classes, data, target.seed)
    if target.pretrain:
        _transfer(load_tensors(inputs.read("pretrain", "model.safetensors")), network)
    frozen = freeze(network, str(target.budget), target.freeze)
    pairs = Pairs(images.images, images.labels)
    fitted = fit(network, pairs, classification(), target.recipe, target.seed, inputs.world)
    outputs = _trained("target", network, fitted)
    if inputs.world.rank == 0:
        test = selection.target_images(private, data, target.classes, "evaluation")
        logits = predict(network, test.images, inputs.world.device)
        outputs.metrics["target/accuracy"] = topk_accuracy(logits, test.labels, 1) or 0.0
    return Outputs(outputs.files, outputs.metrics | _budget_metrics(frozen), outputs.images_seen)


def judge(inputs: Inputs, data: Data, judge: Judge) -> Outputs:
    """Train the evaluation classifier on every class of the private data set."""
    private = inputs.datasets(data.dataset)
    images = selection.judge_images(private, data, "train")
    network = _classifier(judge.model, images.num_classes, data, judge.seed)
    pairs = Pairs(images.images, images.labels)
    fitted = fit(network, pairs, classification(), judge.recipe, judge.seed, inputs.world)
    outputs = _trained("judge", network, fitted)
    if inputs.world.rank == 0:
        test = selection.judge_images(private, data, "evaluation")
        logits = predict(network, test.images, inputs.world.device)
        outputs.metrics["judge/accuracy"] = topk_accuracy(logits, test.labels, 1) or 0.0
    return outputs


def predictions(inputs: Inputs, data: Data, target: Target, auxiliary: Auxiliary) -> Outputs:
    """Query the victim once with every auxiliary image; full scores are stored, truncated on reading."""
    images = _auxiliary(inputs, data, target, auxiliary)
    scores = _scores(inputs, data, target, images)
    return Outputs({"scores.npy": _npy(scores)}, {"predictions/images": float(len(images))}, len(images))


def victims(inputs: Inputs, data: Data, target: Target, evaluation: Evaluation) -> Outputs:
    """Record the victim's full scores for its own training and test images: what will be released."""
    files, seen = {}, 0
    for part, (images, _) in _victim_images(inputs, data, target, evaluation).items():
        files[f"scores_{part}.npy"] = _npy(_scores(inputs, data, target, images))
        seen += len(images)
    return Outputs(files, {}, seen)


def inversion(
    inputs: Inputs, data: Data, target: Target, auxiliary: Auxiliary, attack: Attack, release: Release
) -> Outputs:
    """Train the inverter on (released scores, image) pairs of the auxiliary set (AMI, section 4)."""
    images = _auxiliary(inputs, data, target, auxiliary)
    scores = released(_read_npy(inputs, "predictions", "scores.npy"), release)
    m = released_length(target.classes, release)
    inverter = _inverter(attack, data, target)
    if attack.offset_learnable:
        pairs, network = Pairs(scores, images), AtTruncation(inverter, m)
    else:  # nothing trained precedes the network, so the encoding is computed once
        pairs, network = Pairs(inverter.encode(scores, m), images), inverter.network
    fitted = fit(network, pairs, reconstruction(), attack.recipe, attack.seed, inputs.world)
    return _trained("inversion", inverter, fitted)


def evaluation(
    inputs: Inputs,
    data: Data,
    target: Target,
    attack: Attack,
    release: Release,
    judge: Judge,
    evaluation: Evaluation,
) -> Outputs:
    """Reconstruct the victim's training and test images from released scores; measure and judge them."""
    private = inputs.datasets(data.dataset)
    inverter = _inverter(attack, data, target)
    inverter.load_state_dict(load_tensors(inputs.read("inversion", "model.safetensors")))
    network = AtTruncation(inverter, released_length(target.classes, release)).to(inputs.world.device)
    judge_network = _classifier(judge.model, private.description.num_classes, data, judge.seed)
    judge_network.load_state_dict(load_tensors(inputs.read("judge", "model.safetensors")))
    judge_network.to(inputs.world.device)
    original = torch.tensor(selection.private_classes(private, data, target.classes))
    metrics: dict[str, float] = {}
    files: dict[str, bytes] = {}
    seen = 0
    for part, (images, labels) in _victim_images(inputs, data, target, evaluation).items():
        scores = released(_read_npy(inputs, "victims", f"scores_{part}.npy"), release)
        guesses = predict(network, scores, inputs.world.device)
        truth = as_unit(images)
        logits = predict(judge_network, guesses, inputs.world.device)
        metrics |= _likeness(part, truth, guesses) | _recognition(part, logits, original[labels])
        shown = guesses[: evaluation.grid].mul(255).round().to(torch.uint8)
        files[f"grid_{part}.png"] = png(pair_grid(images[: evaluation.grid], shown))
        files[f"reconstructions_{part}.npy"] = _npy(shown)
        files[f"victims_{part}.npy"] = _npy(images[: evaluation.grid])
        seen += len(images)
    return Outputs(files, metrics, seen)


STAGES: dict[str, tuple[Callable[..., Outputs], dict[str, type[Spec]]]] = {
    "pretrain": (pretrain, {"data": Data, "model": Model, "pretrain": Pretrain}),
    "target": (target, {"data": Data, "target": Target}),
    "judge": (judge, {"data": Data, "judge": Judge}),
    "predictions": (predictions, {"data": Data, "target": Target, "auxiliary": Auxiliary}),
    "victims": (victims, {"data": Data, "target": Target, "evaluation": Evaluation}),
    "inversion": (
        inversion,
        {"data": Data, "target": Target, "auxiliary": Auxiliary, "attack": Attack, "release": Release},
    ),
    "evaluation": (
        evaluation,
        {
            "data": Data,
            "target": Target,
            "attack": Attack,
            "release": Release,
            "judge": Judge,
            "evaluation": Evaluation,
        },
    ),
}


class AtTruncation(nn.Module):
    """An inverter whose inputs all have the same truncation m: released scores (N, k) -> images."""

    def __init__(self, inverter: Inverter, m: int) -> None:
        super().__init__()
        self.inverter, self.m = inverter, m

    def forward(self, scores: Tensor) -> Tensor:
        """Reconstruct images (N, C, S, S) in [0, 1]."""
        return self.inverter(scores, self.m)


def _classifier(model: Model, classes: int, data: Data, seed: int) -> Any:
    channels, image_size = data.channels, data.image_size
    return seeded(
        lambda: build_classifier(model, classes=classes, channels=channels, image_size=image_size), seed
    )


def _inverter(attack: Attack, data: Data, target: Target) -> Any:
    shapes = {"classes": target.classes, "channels": data.channels, "image_size": data.image_size}
    return seeded(lambda: build_attack(attack, **shapes), attack.seed)


def _transfer(public: Mapping[str, Tensor], network: nn.Module) -> None:
    """Copy everything but the head, whose shape depends on k; any other difference is an error."""
    own = {name: tensor for name, tensor in network.state_dict().items() if name.startswith("head.")}
    body = {name: tensor for name, tensor in public.items() if not name.startswith("head.")}
    network.load_state_dict(body | own, strict=True)


def _trained(stage: str, network: nn.Module, fitted: Fitted) -> Outputs:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    curves = {f"{stage}/{name}": values for name, values in fitted.curves.items()}
    metrics = {f"{stage}/{name}": value for name, value in fitted.best.items()}
    metrics[f"{stage}/best_epoch"] = float(fitted.best_epoch)
    files = {"model.safetensors": save_tensors(tensors), "curves.json": json.dumps(curves).encode()}
    return Outputs(files, metrics, fitted.images_seen)


def _budget_metrics(frozen: Frozen) -> dict[str, float]:
    """|theta_C| and |theta_T| in millions, the pair that TL-DMI prints."""
    return {"target/theta_c_millions": frozen.trainable / 1e6, "target/theta_t_millions": frozen.total / 1e6}


def _auxiliary(inputs: Inputs, data: Data, target: Target, auxiliary: Auxiliary) -> Tensor:
    """Return the adversary's images (N, C, S, S) uint8."""
    other = inputs.names.get("auxiliary")
    return selection.auxiliary_images(
        inputs.datasets(data.dataset),
        inputs.datasets(other) if other else None,
        data,
        target.classes,
        auxiliary,
    ).images


def _victim_images(
    inputs: Inputs, data: Data, target: Target, evaluation: Evaluation
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return a seeded sample of the images F was fitted on and of its test images, with labels 0..k-1."""
    private = inputs.datasets(data.dataset)
    sets = {}
    for part, source in (("train", "train"), ("test", "evaluation")):
        images = selection.target_images(private, data, target.classes, source)
        pairs = Pairs(images.images, images.labels)
        if part == "train":  # without those held out to choose the epoch
            pairs, _ = hold_out(pairs, target.recipe.validation_fraction, target.seed)
        generator = torch.Generator().manual_seed(derive_seed("evaluation", evaluation.seed))
        chosen = torch.randperm(len(pairs), generator=generator)[: evaluation.images]
        sets[part] = (pairs.inputs[chosen], pairs.outputs[chosen])
    return sets


def _scores(inputs: Inputs, data: Data, target: Target, images: Tensor) -> Tensor:
    """Return F's full scores (N, k), float32."""
    network = _classifier(target.model, target.classes, data, 0)
    network.load_state_dict(load_tensors(inputs.read("target", "model.safetensors")))
    network.to(inputs.world.device)
    return predict(network, images, inputs.world.device).softmax(1)


def _likeness(part: str, truth: Tensor, guesses: Tensor) -> dict[str, float]:
    values = {"mse": mse(truth, guesses), "psnr": psnr(truth, guesses), "ssim": ssim(truth, guesses)}
    return {f"inversion/{name}_{part}": value for name, value in values.items()}


def _recognition(part: str, logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Share of reconstructions that the judge gives to the victim's class, among all of the data set's."""
    found = {k: topk_accuracy(logits, labels, k) for k in (1, 5)}
    return {f"attack/accuracy_top{k}_{part}": value for k, value in found.items() if value is not None}


def _npy(tensor: Tensor) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, tensor.numpy(), allow_pickle=False)
    return buffer.getvalue()


def _read_npy(inputs: Inputs, role: str, name: str) -> Tensor:
    return torch.from_numpy(np.load(io.BytesIO(inputs.read(role, name)), allow_pickle=False))

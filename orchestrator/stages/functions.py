"""The experiment in the order it runs: pretrain, target or joint, snapshot, judge, victims, then the attack's
own stages (predictions, surrogate, inversion; or optimization), fisher, evaluation.

A stage is a function of the sub-specs it reads and of its inputs' files; it returns files and metrics and
knows neither store nor cluster. `run` calls the one that a planned stage names. All ranks of a worker group
enter a stage; only rank 0's result counts.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from orchestrator import defenses
from orchestrator.analyses.fisher import (
    classification_profile,
    inverter_profiles,
    mia_search,
    search_profiles,
)
from orchestrator.analyses.profiles import CLASSIFICATION, Measured, profile_csv, profile_png
from orchestrator.attacks import SEARCHED
from orchestrator.attacks import losses as extra
from orchestrator.attacks.class_count import class_count
from orchestrator.attacks.inverter import Inverter
from orchestrator.attacks.joint import Pair
from orchestrator.attacks.joint import objective as joint_objective
from orchestrator.attacks.sharded_search import search_all
from orchestrator.config import (
    Attack,
    Auxiliary,
    Data,
    Evaluation,
    Fisher,
    InverterAttack,
    JointAttack,
    Judge,
    MiaAttack,
    Model,
    OptimizationAttack,
    Pretrain,
    Release,
    Surrogate,
    Target,
)
from orchestrator.datasets import selection
from orchestrator.metrics.classification import topk_accuracy
from orchestrator.models.discriminator import Discriminator
from orchestrator.stages import layers
from orchestrator.stages import target_model as victim
from orchestrator.stages.graph import Stage
from orchestrator.stages.io import (
    Inputs,
    Outputs,
    auxiliary_images,
    fitted_images,
    new_classifier,
    new_inverter,
    npy,
    private_and_other,
    read_npy,
    stored_classifier,
    tensors,
    trained,
    victim_images,
)
from orchestrator.stages.measuring import Attacked, measure_classes, measure_images
from orchestrator.stages.public_weights import check_accuracy, public_weights
from orchestrator.stages.similarity import Likeness, public_networks
from orchestrator.threat import BlackBox, WhiteBox, released, released_length
from orchestrator.training.loop import fit, predict
from orchestrator.training.objectives import Objective, as_unit, classification, distillation, reconstruction
from orchestrator.training.pairs import Pairs
from orchestrator.training.seeds import derive_seed, seeded

QUERY_BATCH = 4096  # images made float at a time


def run(stage: Stage, inputs: Inputs) -> tuple[Outputs, dict[str, float]]:
    """Run a planned stage; return its outputs and their cost in wall and CPU seconds."""
    function, reads = STAGES[stage.name]
    specs = {role: TypeAdapter(reads[role]).validate_python(stage.specs[role]) for role in reads}
    wall, cpu = time.perf_counter(), time.process_time()
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed("stage", stage.key))  # a victim may draw noise for each prediction
        outputs = function(inputs, **specs)
    cost = {
        "wall_seconds": round(time.perf_counter() - wall, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "images_seen": float(outputs.images_seen),
    }
    return outputs, cost


def pretrain(inputs: Inputs, data: Data, model: Model, pretrain: Pretrain) -> Outputs:
    """Train the target's network on public classes, or take weights that were trained elsewhere and check
    them (TL-DMI, section 9)."""
    images, other = None, inputs.names.get("pretrain")
    if other is not None:
        images = selection.whole(inputs.datasets(other), data)
    elif pretrain.weights is None:
        images = selection.public_images(inputs.datasets(data.dataset), data)
    public = inputs.weights("pretrain")
    if public is not None:
        outputs = public_weights(public, images, data, model, pretrain, inputs.world.device)
    else:
        assert images is not None
        network = new_classifier(model, images.num_classes, data, pretrain.seed)
        pairs = Pairs(images.images, images.labels)
        fitted = fit(network, pairs, classification(), pretrain.recipe, pretrain.seed, inputs.world)
        outputs = trained("pretrain", network, fitted)
    check_accuracy(outputs, pretrain)
    return outputs


def target(inputs: Inputs, data: Data, target: Target) -> Outputs:
    """Train the victim F on its private classes; frozen layers keep the public weights."""
    network, frozen = victim.untrained(inputs, data, target)
    loss = defenses.objective(target.defense, target.classes)
    fitted = victim.train(inputs, data, target, loss, network, frozen)
    outputs = victim.left("target", network, fitted, frozen)
    if target.defense.dp:
        outputs.metrics["target/epsilon"] = victim.epsilon(inputs, data, target)
    return victim.with_accuracy(outputs, inputs, data, target, network)


def snapshot(inputs: Inputs, data: Data, target: Target) -> Outputs:
    """Take F as it was after an epoch of its training (TL-DMI, Figure 1)."""
    assert target.snapshot is not None
    state = inputs.read("target", victim.snapshot_file(target.snapshot))
    network = victim.holding(state, inputs, data, target)
    return victim.with_accuracy(Outputs({"model.safetensors": state}, {}), inputs, data, target, network)


def joint(inputs: Inputs, data: Data, target: Target, attack: JointAttack, release: Release) -> Outputs:
    """Train F and G together on F's private classes (AMI, section IV-C); leaves both."""
    network, frozen = victim.untrained(inputs, data, target)
    inverter = new_inverter(attack, data, target)
    pair = Pair(network, inverter, released_length(target.classes, release), release.renormalised)
    loss = joint_objective(attack, num_pixels=data.channels * data.image_size**2)
    fitted = victim.train(inputs, data, target, loss, pair, frozen)
    outputs = victim.left("joint", network, fitted, frozen)
    outputs.files["inverter.safetensors"] = tensors(inverter.state_dict())
    return victim.with_accuracy(outputs, inputs, data, target, network)


def judge(inputs: Inputs, data: Data, judge: Judge) -> Outputs:
    """Train the evaluation classifier on every class of the private data set."""
    private = inputs.datasets(data.dataset)
    images = selection.judge_images(private, data, "train")
    network = new_classifier(judge.model, images.num_classes, data, judge.seed, resizes=True)
    pairs = Pairs(images.images, images.labels)
    fitted = fit(network, pairs, classification(), judge.recipe, judge.seed, inputs.world)
    outputs = trained("judge", network, fitted)
    if inputs.world.rank == 0:
        test = selection.judge_images(private, data, "evaluation")
        logits = predict(network, test.images, inputs.world.device)
        outputs.metrics["judge/accuracy"] = topk_accuracy(logits, test.labels, 1) or 0.0
    return outputs


def victims(inputs: Inputs, data: Data, target: Target, evaluation: Evaluation) -> Outputs:
    """Record the victim's full scores for its own training and test images: what will be released."""
    files, seen = {}, 0
    network = victim.stored(inputs, data, target)
    for part, (images, _) in victim_images(inputs, data, target, evaluation).items():
        files[f"scores_{part}.npy"] = npy(predict(network, images, inputs.world.device).softmax(1))
        seen += len(images)
    return Outputs(files, {}, seen)


def predictions(inputs: Inputs, data: Data, target: Target, auxiliary: Auxiliary) -> Outputs:
    """Query the victim once with every auxiliary image; full scores are stored, truncated on reading."""
    images = auxiliary_images(inputs, data, target, auxiliary)
    box = BlackBox(victim.stored(inputs, data, target), Release())
    scores = _answers(box, images)
    counted = class_count(scores.argmax(1))  # the top label is in every release
    metrics = {
        "predictions/images": float(len(images)),
        "predictions/classes_seen": float(counted.seen),
        "predictions/classes_chao1": counted.chao1,
        "predictions/shared_identities": float(_num_shared(inputs, data, auxiliary)),
        "attack/queries": float(box.num_queries),
    }
    return Outputs({"scores.npy": npy(scores)}, metrics, len(images))


def surrogate(
    inputs: Inputs, data: Data, target: Target, auxiliary: Auxiliary, surrogate: Surrogate, release: Release
) -> Outputs:
    """Train the adversary's own classifier on the victim's answers, to compare features with."""
    images = auxiliary_images(inputs, data, target, auxiliary)
    scores = released(read_npy(inputs, "predictions", "scores.npy"), release)
    network = new_classifier(surrogate.model, target.classes, data, surrogate.seed)
    pairs = Pairs(images, scores)
    fitted = fit(network, pairs, distillation(), surrogate.recipe, surrogate.seed, inputs.world)
    return trained("surrogate", network, fitted)


def inversion(
    inputs: Inputs,
    data: Data,
    target: Target,
    auxiliary: Auxiliary,
    attack: InverterAttack,
    release: Release,
) -> Outputs:
    """Train the inverter on (released scores, image) pairs of the auxiliary set (AMI, section IV)."""
    images = auxiliary_images(inputs, data, target, auxiliary)
    scores = released(read_npy(inputs, "predictions", "scores.npy"), release)
    m = released_length(target.classes, release)
    inverter = new_inverter(attack, data, target)
    is_encoded = not attack.offset_learnable  # nothing trained precedes the network then: encode once

    def pairs(scores: Tensor, images: Tensor) -> Pairs:
        return Pairs(inverter.encode(scores, m) if is_encoded else scores, images)

    network = inverter.network if is_encoded else AtTruncation(inverter, m)
    network, loss = _with_losses(inputs, network, attack, data, target)
    loss = replace(loss, keeps_last=attack.selection == "last")
    chosen_on, asked = None, {}
    if attack.selection == "victim-train":  # asked beside the auxiliary images
        known, _ = fitted_images(inputs, data, target)
        box = BlackBox(victim.stored(inputs, data, target), release)
        chosen_on = pairs(_answers(box, known), known)
        asked = {"attack/queries": float(len(images) + box.num_queries)}
    training = pairs(scores, images)
    fitted = fit(network, training, loss, attack.recipe, attack.seed, inputs.world, chosen_on)
    outputs = trained("inversion", network, fitted)
    files = {
        "inverter.safetensors": tensors(inverter.state_dict()),
        "curves.json": outputs.files["curves.json"],
    }
    return Outputs(files, outputs.metrics | asked, outputs.images_seen)


def optimization(
    inputs: Inputs,
    data: Data,
    target: Target,
    attack: MiaAttack | OptimizationAttack,
    release: Release,
    evaluation: Evaluation,
) -> Outputs:
    """Search an image for each prediction by the victim's gradient (AMI, section II-B)."""
    box = WhiteBox(victim.stored(inputs, data, target))
    shape = (data.channels, data.image_size, data.image_size)
    if evaluation.task == "class-inference":
        parts, m = {"class": torch.eye(target.classes)}, 1
    else:
        full = {part: read_npy(inputs, "victims", f"scores_{part}.npy") for part in ("train", "test")}
        parts = {part: released(scores, release) for part, scores in full.items()}
        m = released_length(target.classes, release)
    search = partial(SEARCHED[attack.name], attack, box, m=m, shape=shape)
    scores = torch.cat(list(parts.values()))
    found = search_all(search, scores, inputs.world)
    sizes = [len(part) for part in parts.values()]
    images = found.images.mul(255).round().to(torch.uint8).split(sizes)
    files = {f"reconstructions_{part}.npy": npy(guesses) for part, guesses in zip(parts, images, strict=True)}
    metrics = {
        "optimization/steps": found.steps.double().mean().item(),
        "optimization/cost": found.costs.double().mean().item(),
        "attack/queries": float((found.steps + 1).sum()),  # and one of the last image
    }
    return Outputs(files, metrics, len(scores))


def fisher(
    inputs: Inputs,
    data: Data,
    target: Target,
    attack: Attack,
    release: Release,
    fisher: Fisher,
) -> Outputs:
    """Measure how much each of F's layers matters for classifying and for being inverted (TL-DMI, Fig. 4)."""
    images, labels = fitted_images(inputs, data, target)
    images, labels = images[: fisher.images], labels[: fisher.images]
    network = victim.stored(inputs, data, target)
    distances = layers.distances(fisher, public_networks(inputs))
    profiles = {CLASSIFICATION: classification_profile(network, images, labels)}
    if isinstance(attack, MiaAttack):
        search = mia_search(attack, labels, (data.channels, data.image_size, data.image_size))
        found = search_profiles(network, search, images, iterations=fisher.iterations, distances=distances)
        profiles |= {Measured("inversion", name, iteration): one for (name, iteration), one in found.items()}
    else:
        assert isinstance(attack, InverterAttack | JointAttack)
        inverter = _trained_inverter(inputs, data, target, attack)
        made = inverter_profiles(network, inverter, release, images, distances=distances)
        profiles |= {Measured("inversion", name): one for name, one in made.items()}
    files = {"fisher.csv": profile_csv(profiles), "fisher.png": profile_png(profiles)}
    return Outputs(files, layers.early_shares(network, profiles), len(images))


def evaluation(
    inputs: Inputs,
    data: Data,
    target: Target,
    attack: Attack,
    release: Release,
    judge: Judge,
    evaluation: Evaluation,
) -> Outputs:
    """Rebuild the victim's images, or one for each of its classes; measure and judge them."""
    private, device = inputs.datasets(data.dataset), inputs.world.device
    num_classes = private.description.num_classes
    judging = stored_classifier(inputs, "judge", judge.model, num_classes, data, resizes=True)
    original = torch.tensor(selection.private_classes(private, data, target.classes))
    training = selection.target_images(private, data, target.classes, "train")
    likeness, box = Likeness(training, judging, inputs), victim.stored(inputs, data, target)

    def attacked(guesses: Tensor, labels: Tensor) -> Attacked:
        scores = predict(box, guesses, device).softmax(1)
        return Attacked(guesses, labels, scores, predict(judging, guesses, device), original)

    if evaluation.task == "class-inference":
        guesses = _rebuilt(inputs, data, target, attack, "class", torch.eye(target.classes), 1)
        found = attacked(guesses, torch.arange(target.classes))
        measured = [measure_classes(training, found, likeness)]
    else:
        measured, m = [], released_length(target.classes, release)
        for part, (victims, labels) in victim_images(inputs, data, target, evaluation).items():
            scores = released(read_npy(inputs, "victims", f"scores_{part}.npy"), release)
            guesses = _rebuilt(inputs, data, target, attack, part, scores, m)
            measured.append(measure_images(part, victims, attacked(guesses, labels), likeness))
    files = {name: content for one in measured for name, content in one.files(evaluation.grid).items()}
    metrics = {name: value for one in measured for name, value in one.metrics.items()}
    return Outputs(files, metrics, sum(len(one.victims) for one in measured))


STAGES: dict[str, tuple[Callable[..., Outputs], dict[str, Any]]] = {
    "pretrain": (pretrain, {"data": Data, "model": Model, "pretrain": Pretrain}),
    "target": (target, {"data": Data, "target": Target}),
    "snapshot": (snapshot, {"data": Data, "target": Target}),
    "joint": (joint, {"data": Data, "target": Target, "attack": JointAttack, "release": Release}),
    "judge": (judge, {"data": Data, "judge": Judge}),
    "predictions": (predictions, {"data": Data, "target": Target, "auxiliary": Auxiliary}),
    "victims": (victims, {"data": Data, "target": Target, "evaluation": Evaluation}),
    "surrogate": (
        surrogate,
        {"data": Data, "target": Target, "auxiliary": Auxiliary, "surrogate": Surrogate, "release": Release},
    ),
    "inversion": (
        inversion,
        {
            "data": Data,
            "target": Target,
            "auxiliary": Auxiliary,
            "attack": InverterAttack,
            "release": Release,
        },
    ),
    "optimization": (
        optimization,
        {
            "data": Data,
            "target": Target,
            "attack": MiaAttack | OptimizationAttack,
            "release": Release,
            "evaluation": Evaluation,
        },
    ),
    "fisher": (
        fisher,
        {"data": Data, "target": Target, "attack": Attack, "release": Release, "fisher": Fisher},
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


def _with_losses(
    inputs: Inputs, network: nn.Module, attack: InverterAttack, data: Data, target: Target
) -> tuple[nn.Module, Objective]:
    """Return what is trained and its objective: the inverter alone on the squared error, or with rivals."""
    losses = attack.losses
    if not (losses.adversarial or losses.features or losses.total_variation):
        return network, reconstruction()
    comparator = None
    if losses.features and losses.surrogate:
        model = losses.surrogate.model
        comparator = stored_classifier(inputs, "surrogate", model, target.classes, data).requires_grad_(False)
    if losses.adversarial:
        channels, image_size, width = data.channels, data.image_size, attack.model.width
        rival = seeded(
            lambda: Discriminator(channels=channels, image_size=image_size, width=width), attack.seed
        )
        network = extra.Rival(network, rival)
    return network, extra.objective(losses, comparator)


def _answers(box: BlackBox, images: Tensor) -> Tensor:
    """Return the victim's answers to uint8 images (N, C, S, S), made float a part at a time."""
    return torch.cat([box.query(as_unit(batch)) for batch in images.split(QUERY_BATCH)])


def _rebuilt(
    inputs: Inputs, data: Data, target: Target, attack: Attack, part: str, scores: Tensor, m: int
) -> Tensor:
    """Return the attack's image (N, C, S, S) in [0, 1] for each released row of scores (N, k)."""
    if not isinstance(attack, InverterAttack | JointAttack):
        return as_unit(read_npy(inputs, "attack", f"reconstructions_{part}.npy"))
    device = inputs.world.device
    inverter = _trained_inverter(inputs, data, target, attack)
    return predict(AtTruncation(inverter, m).to(device), scores, device)


def _trained_inverter(
    inputs: Inputs, data: Data, target: Target, attack: InverterAttack | JointAttack
) -> Inverter:
    """Return the inverter that the attack's stage left."""
    inverter: Inverter = new_inverter(attack, data, target)
    inverter.load_state_dict(load_tensors(inputs.read("attack", "inverter.safetensors")))
    return inverter


def _num_shared(inputs: Inputs, data: Data, auxiliary: Auxiliary) -> int:
    """Return how many private classes the adversary's own data set has too, by name."""
    private, other = private_and_other(inputs, data)
    is_public = auxiliary.kind in ("generic", "augmented")
    return len(selection.shared_identities(private, other, data)) if is_public and other else 0

"""Measurable metrics: which names of the metrics' table a trial leaves, by its stages and settings."""

from collections.abc import Callable, Collection, Iterable, Mapping

from orchestrator.config import Judge
from orchestrator.config.normalise import PlannedSpec
from orchestrator.metrics.floors import CLASSES, RECOGNISER_CHANCE
from orchestrator.metrics.names import (
    BY_FURTHER_JUDGES,
    BY_JUDGES,
    BY_RECOGNISER,
    CLASS,
    CLASS_GUESSES,
    GUESSES,
    METRICS,
    MetricName,
)
from orchestrator.stages.graph import STAGES
from orchestrator.sweep.adversary import BEYOND

MEASURES = ("evaluation", "retrieval")
"""Stages that leave the metrics of reconstructions; their families are other stages' too."""

FIT = ("best_epoch", "validation_")
"""How metrics of a training begin: they belong to the stage that their name begins with."""

TOP = 5
"""Choices of the evaluation model that top-5 metrics look among: of as many classes they are left out."""

Setting = Callable[[PlannedSpec], str]
"""Return the setting that a trial lacks, or nothing."""


def _or_needs(has: Callable[[PlannedSpec], object], needed: str) -> Setting:
    return lambda spec: "" if has(spec) else needed


def _profiled(distance: str) -> Setting:
    needed = f"{distance} in evaluation.fisher.distances"
    return _or_needs(
        lambda spec: spec.evaluation.fisher and distance in spec.evaluation.fisher.distances, needed
    )


def _is_trained_here(spec: PlannedSpec) -> bool:
    return spec.target.pretrain is not None and spec.target.pretrain.weights is None


def _is_checked(spec: PlannedSpec) -> object:
    return spec.target.pretrain and spec.target.pretrain.weights and spec.target.pretrain.dataset


def _lacks_epsilon(spec: PlannedSpec) -> str:
    if spec.target.given is not None:
        return "a target that is trained here"
    return "" if spec.target.defense.dp else "target.defense.dp"


def _learns_from_target(spec: PlannedSpec) -> object:
    return spec.prior and spec.prior.needs_target


def _has_losses(spec: PlannedSpec) -> object:
    losses = getattr(spec.attack, "losses", None)
    return losses and (losses.adversarial or losses.features or losses.total_variation)


def _infers_classes(spec: PlannedSpec) -> bool:
    return spec.evaluation.task == "class-inference"


_HAS_IMAGES = _or_needs(lambda spec: spec.attack.looks_up != "none", "an adversary with images")
_HAS_NONE = _or_needs(lambda spec: spec.attack.looks_up == "none", "an adversary without images")
_HAS_LAYERS = _or_needs(
    lambda spec: spec.target.foreign is None, "a target that is a network of this project"
)
_TRAINED_HERE = _or_needs(_is_trained_here, "target.pretrain without weights")
SETTINGS: Mapping[str, Setting] = {
    "target/epsilon": _lacks_epsilon,
    "target/theta_c_millions": _HAS_LAYERS,
    "target/theta_t_millions": _HAS_LAYERS,
    "pretrain/accuracy": _or_needs(_is_checked, "target.pretrain.weights with target.pretrain.dataset"),
    "pretrain/validation_accuracy": _TRAINED_HERE,
    "pretrain/validation_loss": _TRAINED_HERE,
    "pretrain/best_epoch": _TRAINED_HERE,
    "prior/queries": _or_needs(_learns_from_target, "prior.loss=kedmi or plg"),
    "inversion/validation_total": _or_needs(_has_losses, "a loss of attack.losses"),
    CLASSES: _or_needs(_infers_classes, "evaluation.task=class-inference"),
    RECOGNISER_CHANCE: _or_needs(
        lambda spec: spec.judges.recogniser and _infers_classes(spec),
        "judges.recogniser with evaluation.task=class-inference",
    ),
    BEYOND: _or_needs(lambda spec: spec.attack.queries_target, "an attack that queries the target"),
    "attack/classes_estimated": _or_needs(
        lambda spec: spec.attack.estimates_classes, "attack.classes=estimated"
    ),
    **{
        str(name): _or_needs(lambda spec: spec.target.service is None, "a target that is no service")
        for metric in ("target_top1", "target_confidence")
        for name in METRICS[metric].names()
    },
    **{
        str(name): _or_needs(lambda spec: spec.judges.recogniser, "judges.recogniser")
        for metric in BY_RECOGNISER
        for name in METRICS[metric].names()
    },
    **{
        f"fisher/early_share_{distance}": _profiled(distance)
        for distance in ("l2", "l1", "lpips-vgg", "lpips-alex")
    },
    **{
        str(name): _HAS_NONE if guess == "grey" else _HAS_IMAGES
        for guess in dict.fromkeys((*GUESSES, *CLASS_GUESSES))
        for metric in (f"{guess}_mse", f"yardstick_{guess}_mse", f"yardstick_{guess}_top1")
        if metric in METRICS
        for name in METRICS[metric].names()
    },
}
"""Metric -> what it needs beside its stage and its network."""


def lacks(name: MetricName, spec: PlannedSpec, num_classes: int) -> str:
    """Return what a trial lacks for a metric, as the object of "needs"; empty if it will leave the metric.

    `num_classes` are the private data set's, among which the evaluation model chooses.
    """
    metric = name.metric
    task = "class-inference" if name.part == CLASS else "reconstruction"
    if metric.of != "stage" and spec.evaluation.task != task:
        return f"evaluation.task={task}"
    if metric.name.endswith(f"_top{TOP}") and num_classes <= TOP:
        return f"more than {TOP} classes in the private data set"
    if metric.of == "stage" and (missing := _lacks_stage(name, spec)):
        return missing
    if metric.of != "stage" and (missing := _lacks_judge(name, spec)):
        return missing
    if (own := SETTINGS.get(str(name))) and (setting := own(spec)):
        return setting
    if metric.needs and getattr(spec.evaluation.networks, metric.needs) is None:
        return f"evaluation.networks.{metric.needs}"
    return ""


def what_is_lacking(name: MetricName, specs: Iterable[PlannedSpec], num_classes: Mapping[str, int]) -> str:
    """Return what the first trial lacks for a metric that no trial leaves; empty if one leaves it.

    `num_classes`: data set name -> its classes.
    """
    missing = ""
    for spec in specs:
        here = lacks(name, spec, num_classes[spec.data.dataset])
        if not here:
            return ""
        missing = missing or here
    return missing


def _lacks_stage(name: MetricName, spec: PlannedSpec) -> str:
    family, _, instance = name.stage.partition(".")
    is_fit = name.metric.name.startswith(FIT)
    kinds = [kind for kind in STAGES.values() if family in kind.metrics and kind.name not in MEASURES]
    kinds = [kind for kind in kinds if not is_fit or kind.name == family]
    if is_fit and family == "judge" and not _judge(spec, instance).trained:
        return "a judge that is trained here"
    labels: Collection[str] = [use.instance for kind in kinds for use in kind.uses(spec)]
    return "" if instance in labels else f"the stage {' or '.join(kind.name for kind in kinds)}"


def _judge(spec: PlannedSpec, instance: str) -> Judge:
    """Return a judge by its instance; the trial's own where it has no such one."""
    return spec.judges.classifiers.get(instance, spec.judge)


def _lacks_judge(name: MetricName, spec: PlannedSpec) -> str:
    """Return the further judge that a metric of reconstructions lacks."""
    if name.instance and name.metric.name not in BY_JUDGES:
        return f"{name.stage.partition('.')[0]}/... without a judge's name"
    if not name.instance and name.metric.name in BY_FURTHER_JUDGES:
        return f"the name of one of judges.classifiers, as in {name.of_judge('NAME')}"
    has_judge = not name.instance or name.instance in spec.judges.classifiers
    return "" if has_judge else f"judges.classifiers.{name.instance}"

"""Uses: whether a trial has a stage, how often, and which sub-specs are not the trial's own. No torch.

A function has the name of the stage's row in the graph, or of its module; it returns nothing where the trial
does without the stage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.config import Spec
from orchestrator.config.normalise import PlannedSpec
from orchestrator.config.release import LABELS


@dataclass(frozen=True)
class Use:
    """One use of a stage by a trial."""

    specs: Mapping[str, Spec] = field(default_factory=dict)
    """Sub-specs by role that are not the trial's own of that name."""

    without: tuple[str, ...] = ()
    """Roles of the row's needs that this use has not."""

    unread: tuple[str, ...] = ()
    """Roles of the row's sub-specs and data sets that this use has not."""

    weights: Mapping[str, str] = field(default_factory=dict)
    """Public weights by role that are of this use."""

    instance: str = ""
    """Distinguishes several uses by one trial."""


def pretrain(spec: PlannedSpec) -> Sequence[Use]:
    """Trials whose F starts from public training, or from public weights; every private set shares it that is
    shown alike, unless its own public classes are trained on."""
    pretrain = spec.target.pretrain
    if not pretrain:
        return ()
    specs = {"data": spec.pretrain_data, "model": spec.target.model, "pretrain": pretrain}
    return (Use(specs, unread=("private",) if pretrain.dataset else ()),)


def target(spec: PlannedSpec) -> Sequence[Use]:
    """F, unless the attack trains it or others have."""
    is_made = not spec.attack.trains_target and spec.target.given is None
    return (Use({"target": spec.trained_target}),) if is_made else ()


def given(spec: PlannedSpec) -> Sequence[Use]:
    """F that others trained."""
    return (Use(),) if spec.target.given else ()


def joint(spec: PlannedSpec) -> Sequence[Use]:
    """The developer's F: one training leaves F and G."""
    specs = {"target": spec.trained_target, "release": spec.attacked_release}
    return (Use(specs),) if spec.attack.trains_target else ()


def snapshot(spec: PlannedSpec) -> Sequence[Use]:
    """Trials that attack F as it was after an epoch."""
    return (Use(),) if spec.target.snapshot is not None else ()


def private_scores(spec: PlannedSpec) -> Sequence[Use]:
    """Scores of private images; class inference has none."""
    return (Use({"evaluation": spec.drawn_images}),) if spec.evaluation.task == "reconstruction" else ()


def predictions(spec: PlannedSpec) -> Sequence[Use]:
    """Adversaries that have images and F's answers for them."""
    return (Use(),) if spec.attack.looks_up == "auxiliary" else ()


def prior(spec: PlannedSpec) -> Sequence[Use]:
    """Every target on the same public images shares it, unless it learns from the target's answers; others
    have trained that of `weights`."""
    if not spec.prior or spec.prior.weights:
        return ()
    unread = () if spec.prior.needs_target else ("target",)
    return (Use({"data": spec.public_data}, unread, unread),)


def shield(spec: PlannedSpec) -> Sequence[Use]:
    """Releases that move scores before anything else."""
    if spec.release.shield is None:
        return ()
    unread = {"auxiliary": spec.attack.looks_up != "auxiliary", "evaluation": not private_scores(spec)}
    specs = {"shield": spec.release.shield, "evaluation": spec.drawn_images}
    return (Use(specs, unread=_named(unread)),)


def answers(spec: PlannedSpec) -> Sequence[Use]:
    """F's answers to the prior's public images, where students or a search learn from them."""
    learns = spec.attack.students or spec.attack.reads_features
    return (Use({"data": spec.public_data}),) if learns else ()


def student(spec: PlannedSpec) -> Sequence[Use]:
    """The attack's copies of F, each from its own weights."""
    return [
        Use(
            {"data": spec.public_data, "student": one},
            instance=name,
            weights={"start": one.weights} if one.weights else {},
        )
        for name, one in spec.attack.students.items()
    ]


def prior_quality(spec: PlannedSpec) -> Sequence[Use]:
    """Priors that are trained for trials that name the network which compares images."""
    if not prior(spec) or spec.evaluation.networks.inception is None:
        return ()
    assert spec.prior  # it has a stage
    unread = () if spec.prior.needs_target else ("target",)
    return (Use({"data": spec.public_data}, unread, unread),)


def surrogate(spec: PlannedSpec) -> Sequence[Use]:
    """The adversary's own classifier, where a loss uses one."""
    surrogate = spec.attack.surrogate
    return (Use({"surrogate": surrogate, "release": spec.attacked_release}),) if surrogate else ()


def inversion(spec: PlannedSpec) -> Sequence[Use]:
    """Attacks that train an inverter; a developer has trained it with F."""
    if spec.attack.leaves != "inverter" or spec.attack.trains_target:
        return ()
    specs = {"attack": spec.made_attack, "release": spec.attacked_release}
    return (Use(specs, () if spec.attack.selects_on_target else ("target", "shield")),)


def search(spec: PlannedSpec) -> Sequence[Use]:
    """Attacks that search their images."""
    specs = {"attack": spec.made_attack, "release": spec.attacked_release, "evaluation": spec.drawn_images}
    without, unread = _starts(spec)
    learned = () if spec.attack.reads_features else ("answers",)
    return (Use(specs, (*without, *learned), unread),) if spec.attack.leaves == "images" else ()


def _starts(spec: PlannedSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return needs and sub-specs of what attacks may start from, a prior or images, that this one lacks."""
    without = {"prior": not spec.attack.needs_prior}
    return _named(without), _named({"auxiliary": not spec.attack.has_images, **without})


def reconstructions(spec: PlannedSpec) -> Sequence[Use]:
    """A search has left its images; those of an inverter depend on no judge."""
    specs = {"attack": spec.made_attack, "evaluation": spec.drawn_images}
    return (Use(specs),) if spec.attack.leaves == "inverter" else ()


def fisher(spec: PlannedSpec) -> Sequence[Use]:
    """The analysis, where it is asked for."""
    fisher = spec.evaluation.fisher
    # A search is repeated with gradients by F's weights; its images are not read.
    without = {"attack": spec.attack.profile == "updates", "prior": not spec.attack.needs_prior}
    unread = ("prior",) if without["prior"] else ()
    return (Use({"fisher": fisher}, _named(without), unread),) if fisher else ()


def yardsticks(spec: PlannedSpec) -> Sequence[Use]:
    """What needs no attack depends on none of its settings; only the images of classes are judged."""
    images, is_inference = spec.attack.looks_up, spec.evaluation.task == "class-inference"
    specs: dict[str, Spec] = {"evaluation": spec.drawn_images}
    if is_inference:
        specs["release"] = LABELS  # a look-up of a class reads labels, which are in every release
    unread = {"judge": not is_inference, "auxiliary": images != "auxiliary", "release": images == "none"}
    without = {"judge": not is_inference, "target": images != "training", "victims": images == "none"}
    return (Use(specs, _named(without), _named(unread)),)


def _named(roles: Mapping[str, bool]) -> tuple[str, ...]:
    return tuple(role for role, is_named in roles.items() if is_named)


def judge(spec: PlannedSpec) -> Sequence[Use]:
    """The trial's own judge and further ones, each from its own weights."""
    every = {"": spec.judge, **spec.judges.classifiers}
    starts = {name: {"start": judge.weights} if judge.weights else {} for name, judge in every.items()}
    return [Use({"judge": one}, instance=name, weights=starts[name]) for name, one in every.items()]


def retrieval(spec: PlannedSpec) -> Sequence[Use]:
    """Ranks among private images of the class."""
    return (Use({"attack": spec.made_attack, "evaluation": spec.drawn_images}, *_starts(spec)),)


def evaluation(spec: PlannedSpec) -> Sequence[Use]:
    """What is measured, without the analysis."""
    return (Use({"evaluation": spec.measured}),)


def judgement(spec: PlannedSpec) -> Sequence[Use]:
    """A further judge sees stored images: what made them is in the key of the evaluation."""
    judging = spec.judges.classifiers.items()
    return [Use({"judge": judge, "evaluation": spec.drawn_images}, instance=name) for name, judge in judging]


def descriptors(spec: PlannedSpec) -> Sequence[Use]:
    """Of photographs of every class, for a recogniser that others trained: whoever is private, and whatever
    the target and the attack are."""
    every = spec.data.but(class_pool=None, class_seed=0, class_order="seeded")
    return (Use({"data": every}),) if spec.judges.recogniser else ()


def recognition(spec: PlannedSpec) -> Sequence[Use]:
    """A recogniser that others trained, where one is named."""
    recogniser = spec.judges.recogniser
    return (Use({"recogniser": recogniser, "evaluation": spec.drawn_images}),) if recogniser else ()

"""Stage graph: one table of stages, and the plan of a trial with its keys. No torch: trial drivers live here.

The table reads like a method section. A row holds everything that others ask of a stage; what it computes is
`run` in the file of its name beside this one. A stage's key is SHA-256 over its name, its version, the whole
sub-specs that it reads, the digests of its data sets and weights, the keys of its inputs and the numeric
profile. Same key, same artifact.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from orchestrator.config import PublicNetworks, Spec, TrialSpec
from orchestrator.config.normalise import PlannedSpec
from orchestrator.datasets.classes import auxiliary_dataset_name
from orchestrator.metrics.names import JUDGEMENT, evaluation_version
from orchestrator.models.generator_outlines import Shapes
from orchestrator.stages import uses, work
from orchestrator.stages.stage import Profile, Stage, StageFailed
from orchestrator.stages.uses import Use
from orchestrator.stages.workload import Work

__all__ = [
    "ATTACK",
    "MODELS",
    "STAGES",
    "TARGET",
    "Kind",
    "Planner",
    "Profile",
    "Stage",
    "StageFailed",
    "Use",
    "dataset_names",
    "plan",
    "weight_names",
]

TARGET = ("snapshot", "target", "given", "joint")
"""Stages that leave F; the first that a trial has leaves F as it is attacked."""

INVERTER = ("inversion", "joint")
"""Stages that leave an inverter."""

ATTACK = (*INVERTER, "optimization")
"""Stages that leave an inverter or images."""

MODELS = {"target": TARGET, "prior": ("prior",), "inverter": INVERTER}
"""What a trial's networks are for -> stages, of which the first that the trial has leaves it."""

IMAGES = ("reconstructions", "optimization")
"""Stages that leave an image for each thing that is attacked, in order: `reconstructions_PART.npy`."""


ANSWERS, VICTIMS = ("shield", "predictions"), ("shield", "victims")
"""Stages that leave F's full scores, of the adversary's images and of the private ones: the shield's where
the release has one."""


@dataclass(frozen=True)
class Kind:
    """A row of the table: everything that is known of a stage beside its code."""

    name: str
    """In keys, manifests, metrics and `resources.stages`."""

    version: int
    """Raised when what the stage computes changes; `tests/test_keys.py` holds the golden keys."""

    reads: tuple[str, ...]
    """Roles of the sub-specs that enter its key and that `run` takes by keyword."""

    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Role of an input -> stages, of which the first that the trial has fills it; none leaves it out. Of
    several instances the one of the same name fills it, or all named ones do, as `role.instance`."""

    datasets: tuple[str, ...] = ("private",)
    """Roles of data sets."""

    compared: tuple[str, ...] = ()
    """Roles of data sets that are only compared with the others; the keys of inputs hold their digests."""

    weights: tuple[str, ...] = ()
    """Roles of public weights."""

    metrics: tuple[str, ...] = ()
    """Families of the metrics that it leaves: `target` of `target/accuracy`."""

    uses: Callable[[PlannedSpec], Sequence[Use]] = lambda spec: (Use(),)
    """Return what a trial uses the stage for: nothing, once, or several times."""

    work: Callable[[Any, Shapes | None], Work] = work.nothing
    """Return what the stage does, of its sub-specs by role and the tensors of its public generator's weights,
    where these are known."""

    is_added: bool = False
    """Whether stores from before the stage existed are read without it; a sweep builds it."""

    module: str = ""
    """File beside this one that holds `run`, where it is not called by the stage's name."""

    @property
    def path(self) -> str:
        """Full name of the module that holds `run`."""
        return f"orchestrator.stages.{self.module or self.name}"


def dataset_names(spec: TrialSpec) -> dict[str, str]:
    """Return the data sets that a trial reads: role (private, auxiliary, pretrain, prior) -> name."""
    names = {"private": spec.data.dataset}
    other = auxiliary_dataset_name(spec.auxiliary, spec.data) if spec.attack.has_images else None
    if other:
        names["auxiliary"] = other
    if spec.target.pretrain and spec.target.pretrain.dataset:
        names["pretrain"] = spec.target.pretrain.dataset
    if spec.prior and not spec.prior.weights:
        names["prior"] = spec.prior.dataset or spec.data.dataset
    return names


def weight_names(spec: TrialSpec) -> dict[str, str]:
    """Return the public weights that a trial reads, and the program: role (target, pretrain, prior,
    recogniser, a network that measures, the field of a judge or student that starts from some) -> name."""
    names = dict(spec.evaluation.networks.model_dump(exclude_none=True))
    if spec.judges.recogniser:
        names["recogniser"] = spec.judges.recogniser.weights
    names |= {field: one.weights for field, one in spec.started.items() if one.weights}
    if given := spec.target.given:
        names["target"] = getattr(spec.target, given)
    if spec.target.pretrain and spec.target.pretrain.weights:
        names["pretrain"] = spec.target.pretrain.weights
    if spec.prior and spec.prior.weights:
        names["prior"] = spec.prior.weights
    return names


class Planner:
    """Plans trials. A stage that several of them have is one object, whose key is computed once.

    `digests`: data set name -> manifest digest, `weights/NAME` -> digest of their file, of all trials when
    they are planned; `profiles`: those of stages (by name) that have another than `profile`.
    """

    def __init__(
        self,
        digests: Mapping[str, str],
        profile: Profile,
        profiles: Mapping[str, Profile] = MappingProxyType({}),
    ) -> None:
        self._digests = digests
        self._profiles = {name: asdict(profiles.get(name, profile)) for name in STAGES}
        self._stages: dict[tuple[object, ...], Stage] = {}

    def plan(self, spec: PlannedSpec) -> dict[str, Stage]:
        """Return the stages of one trial by label, in the order they run."""
        names, public = dataset_names(spec), weight_names(spec)
        stages: dict[str, Stage] = {}
        by_name: dict[str, list[Stage]] = {}
        used = [(kind, use) for kind in STAGES.values() for use in kind.uses(spec)]
        for kind, use in used:
            roles = [role for role in kind.reads if role not in use.unread]
            specs = {role: use.specs.get(role) or getattr(spec, role) for role in roles}
            sets = [role for role in kind.datasets if role not in use.unread]
            stage = self._shared(
                kind,
                use.instance,
                specs,
                _digested(sets, names, self._digests, ""),
                _needs(kind, use, by_name),
                _digested(kind.weights, {**public, **use.weights}, self._digests, "weights/"),
                _digested(kind.compared, names, self._digests, ""),
            )
            stages[stage.label] = stage
            by_name.setdefault(kind.name, []).append(stage)
        return stages

    def _shared(
        self,
        kind: Kind,
        instance: str,
        specs: Mapping[str, Spec],
        datasets: Mapping[str, Mapping[str, str]],
        needs: Mapping[str, str],
        weights: Mapping[str, Mapping[str, str]],
        compared: Mapping[str, Mapping[str, str]],
    ) -> Stage:
        """Return the stage, which is the one that an earlier trial has if there is one."""
        texts = (part.text for part in specs.values())
        named = (part["digest"] for part in (*datasets.values(), *weights.values(), *compared.values()))
        same = (kind.name, instance, *texts, *datasets, *weights, *compared, *named, *needs.items())
        if same not in self._stages:
            self._stages[same] = Stage(
                name=kind.name,
                version=kind.version,
                specs={role: part.plain for role, part in specs.items()},
                datasets=datasets,
                needs=needs,
                weights=weights,
                profile=self._profiles[kind.name],
                instance=instance,
                compared=compared,
            )
        return self._stages[same]


def plan(
    spec: PlannedSpec,
    digests: Mapping[str, str],
    profile: Profile,
    profiles: Mapping[str, Profile] = MappingProxyType({}),
) -> dict[str, Stage]:
    """Return the stages of one trial by label, in the order they run; the arguments are `Planner`'s."""
    return Planner(digests, profile, profiles).plan(spec)


def _digested(
    roles: Sequence[str], names: Mapping[str, str], digests: Mapping[str, str], prefix: str
) -> dict[str, dict[str, str]]:
    """Return name and digest by role, of the roles that the trial fills."""
    found = {role: names[role] for role in roles if role in names}
    return {role: {"name": name, "digest": digests[prefix + name]} for role, name in found.items()}


def _needs(kind: Kind, use: Use, planned: Mapping[str, Sequence[Stage]]) -> dict[str, str]:
    """Return the keys of the stages planned so far, by name, that fill the needs of one use."""
    filled: dict[str, str] = {}
    for role, names in kind.needs.items():
        first = next((planned[name] for name in names if name in planned), ())
        chosen = [stage for stage in first if stage.instance == use.instance] or first
        if role not in use.without:
            suffixes = ["" if one.instance in ("", use.instance) else f".{one.instance}" for one in chosen]
            filled |= {role + suffix: one.key for suffix, one in zip(suffixes, chosen, strict=True)}
    return filled


_ROWS = (
    Kind(
        "pretrain",
        version=2,
        reads=("data", "model", "pretrain"),
        datasets=("private", "pretrain"),
        weights=("pretrain",),
        metrics=("pretrain",),
        uses=uses.pretrain,
        work=work.pretrain,
    ),
    Kind(
        "target",
        version=3,
        reads=("data", "target"),
        needs={"pretrain": ("pretrain",)},
        metrics=("target",),
        uses=uses.target,
        work=work.target,
    ),
    Kind(
        "given",
        version=1,
        reads=("data", "target"),
        weights=("target",),
        metrics=("target",),
        uses=uses.given,
        work=work.given,
    ),
    Kind(
        "joint",
        version=2,
        reads=("data", "target", "attack", "release"),
        needs={"pretrain": ("pretrain",)},
        metrics=("joint", "target"),
        uses=uses.joint,
        work=work.joint,
    ),
    Kind(
        "snapshot",
        version=2,
        reads=("data", "target"),
        needs={"target": ("target",)},
        metrics=("target",),
        uses=uses.snapshot,
        work=work.snapshot,
    ),
    Kind(
        "judge",
        version=2,
        reads=("data", "judge"),
        weights=("start",),
        metrics=("judge",),
        uses=uses.judge,
        work=work.judge,
    ),
    Kind(
        "victims",
        version=2,
        reads=("data", "target", "evaluation"),
        needs={"target": TARGET},
        uses=uses.private_scores,
        work=work.private_scores,
        module="private_scores",
    ),
    Kind(
        "predictions",
        version=3,
        reads=("data", "target", "auxiliary"),
        needs={"target": TARGET},
        datasets=("private", "auxiliary"),
        metrics=("predictions", "attack"),
        uses=uses.predictions,
        work=work.predictions,
    ),
    Kind(
        "prior",
        version=1,
        reads=("data", "prior", "target"),
        needs={"target": TARGET},
        datasets=("prior",),
        metrics=("prior",),
        uses=uses.prior,
        work=work.prior,
    ),
    Kind(
        "prior_quality",
        version=1,
        reads=("data", "prior", "target"),
        needs={"prior": ("prior",), "target": TARGET},
        datasets=("prior",),
        weights=("inception",),
        metrics=("prior_quality",),
        uses=uses.prior_quality,
        work=work.prior_quality,
        is_added=True,
    ),
    Kind(
        "shield",
        version=1,
        reads=("data", "target", "shield", "auxiliary", "evaluation"),
        needs={"target": TARGET, "predictions": ("predictions",), "victims": ("victims",)},
        datasets=("private", "auxiliary"),
        metrics=("shield",),
        uses=uses.shield,
        work=work.shield,
    ),
    Kind(
        "answers",
        version=1,
        reads=("data", "target"),
        needs={"target": TARGET},
        datasets=("prior",),
        metrics=("answers",),
        uses=uses.answers,
        work=work.answers,
    ),
    Kind(
        "student",
        version=1,
        reads=("data", "student"),
        needs={"answers": ("answers",)},
        datasets=("prior",),
        weights=("start",),
        metrics=("student",),
        uses=uses.student,
        work=work.student,
    ),
    Kind(
        "surrogate",
        version=1,
        reads=("data", "target", "auxiliary", "surrogate", "release"),
        needs={"predictions": ANSWERS},
        datasets=("private", "auxiliary"),
        metrics=("surrogate",),
        uses=uses.surrogate,
        work=work.surrogate,
    ),
    Kind(
        "inversion",
        version=3,
        reads=("data", "target", "auxiliary", "attack", "release"),
        needs={
            "predictions": ANSWERS,
            "surrogate": ("surrogate",),
            "target": TARGET,
            "shield": ("shield",),
        },
        datasets=("private", "auxiliary"),
        metrics=("inversion", "attack"),
        uses=uses.inversion,
        work=work.inversion,
    ),
    Kind(
        "optimization",
        version=1,
        reads=("data", "target", "auxiliary", "attack", "release", "evaluation", "prior"),
        needs={
            "target": TARGET,
            "victims": VICTIMS,
            "prior": ("prior",),
            "shield": ("shield",),
            "answers": ("answers",),
            "students": ("student",),
        },
        datasets=("private", "auxiliary"),
        compared=("prior",),
        weights=("prior",),
        metrics=("optimization", "attack"),
        uses=uses.search,
        work=work.search,
        module="search",
    ),
    Kind(
        "reconstructions",
        version=1,
        reads=("data", "target", "attack", "release", "evaluation"),
        needs={"attack": INVERTER, "victims": VICTIMS},
        datasets=(),
        uses=uses.reconstructions,
        work=work.reconstructions,
        is_added=True,
    ),
    Kind(
        "fisher",
        version=1,
        reads=("data", "target", "attack", "release", "fisher", "prior"),
        needs={"target": TARGET, "attack": ATTACK, "prior": ("prior",)},
        weights=("vgg", "alex", "prior"),
        metrics=("fisher",),
        uses=uses.fisher,
        work=work.fisher,
    ),
    Kind(
        "yardsticks",
        version=1,
        reads=("data", "target", "auxiliary", "release", "judge", "evaluation"),
        needs={
            "target": TARGET,
            "victims": VICTIMS,
            "predictions": ANSWERS,
            "judge": ("judge",),
        },
        datasets=("private", "auxiliary"),
        metrics=("yardstick", "class"),
        uses=uses.yardsticks,
        work=work.yardsticks,
        is_added=True,
    ),
    Kind(
        "retrieval",
        version=1,
        reads=("data", "target", "auxiliary", "attack", "judge", "evaluation", "prior"),
        needs={"images": IMAGES, "judge": ("judge",), "prior": ("prior",)},
        datasets=("private", "auxiliary"),
        weights=("prior",),
        metrics=("attack", "class"),
        uses=uses.retrieval,
        work=work.retrieval,
        is_added=True,
    ),
    Kind(
        "evaluation",
        version=evaluation_version(),
        reads=("data", "target", "attack", "release", "judge", "evaluation"),
        needs={"target": TARGET, "attack": ATTACK, "victims": VICTIMS, "judge": ("judge",)},
        weights=tuple(PublicNetworks.model_fields),
        metrics=("inversion", "attack", "class"),
        uses=uses.evaluation,
        work=work.evaluation,
    ),
    Kind(
        JUDGEMENT,
        version=1,
        reads=("data", "target", "judge", "evaluation"),
        needs={"judge": ("judge",), "images": IMAGES, "evaluation": ("evaluation",)},
        metrics=("attack", "class"),
        uses=uses.judgement,
        work=work.judgement,
        is_added=True,
    ),
    Kind(
        "descriptors",
        version=1,
        reads=("data",),
        weights=("recogniser",),
        uses=uses.descriptors,
        work=work.descriptors,
        is_added=True,
    ),
    Kind(
        "recognition",
        version=1,
        reads=("data", "target", "recogniser", "evaluation"),
        needs={"images": IMAGES, "evaluation": ("evaluation",), "descriptors": ("descriptors",)},
        weights=("recogniser",),
        metrics=("recogniser", "attack", "class"),
        uses=uses.recognition,
        work=work.recognition,
        is_added=True,
    ),
)

STAGES: dict[str, Kind] = {kind.name: kind for kind in _ROWS}
"""Every stage by name, in the order they run."""

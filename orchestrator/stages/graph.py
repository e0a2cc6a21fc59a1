"""From a resolved spec to the stages that compute it, with their keys. No torch: trial drivers live here.

A stage's key is SHA-256 over its name, its version, the whole sub-specs it reads, the digests of the data
sets it reads, the keys of its inputs and the numeric profile. Same key, same artifact.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType

from orchestrator.config import (
    Evaluation,
    InverterAttack,
    JointAttack,
    MiaAttack,
    PublicNetworks,
    Recipe,
    Release,
    Spec,
    TrialSpec,
)
from orchestrator.config.base import digest
from orchestrator.datasets.classes import auxiliary_dataset_name
from orchestrator.metrics.names import evaluation_version

# Bump a version when what the stage computes changes; `tests/test_keys.py` holds the golden keys.
VERSIONS = {
    "pretrain": 2,
    "target": 2,
    "joint": 2,
    "snapshot": 1,
    "judge": 1,
    "victims": 1,
    "predictions": 2,
    "surrogate": 1,
    "inversion": 2,
    "optimization": 1,
    "fisher": 1,
    "evaluation": evaluation_version(),
}


@dataclass(frozen=True)
class Profile:
    """The numeric profile: what changes bits although the spec is the same."""

    device: str = "cpu"
    precision: str = "float32"
    workers: int = 1
    threads: int = 1


class StageFailed(Exception):
    """A stage ended in an error.

    `kind` is error, corrupt, cancelled, lost (its workers kept dying) or left (the sweep is interrupted).
    """

    def __init__(self, stage: str, message: str, kind: str = "error") -> None:
        super().__init__(stage, message, kind)
        self.stage, self.message, self.kind = stage, message, kind


@dataclass(frozen=True)
class Stage:
    """One planned computation; `needs` lists the keys of its input artifacts by role."""

    name: str
    version: int
    specs: Mapping[str, dict]  # role -> canonical sub-spec
    datasets: Mapping[str, Mapping[str, str]]  # role -> name and digest of the manifest
    needs: Mapping[str, str]  # role -> stage key
    weights: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # role -> name and digest
    profile: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """SHA-256 hex of the canonical JSON of everything above."""
        return digest(asdict(self))


def dataset_names(spec: TrialSpec) -> dict[str, str]:
    """Return the data sets that a trial reads: role (private, auxiliary, pretrain) -> name."""
    names = {"private": spec.data.dataset}
    other = auxiliary_dataset_name(spec.auxiliary, spec.data) if queries_auxiliary(spec) else None
    if other:
        names["auxiliary"] = other
    if spec.target.pretrain and spec.target.pretrain.dataset:
        names["pretrain"] = spec.target.pretrain.dataset
    return names


def weight_names(spec: TrialSpec) -> dict[str, str]:
    """Return the public weights that a trial reads: role (pretrain or a network that measures) -> name."""
    names = dict(spec.evaluation.networks.model_dump(exclude_none=True))
    if spec.target.pretrain and spec.target.pretrain.weights:
        names["pretrain"] = spec.target.pretrain.weights
    return names


def queries_auxiliary(spec: TrialSpec) -> bool:
    """Return whether the adversary queries the victim with images of its own."""
    return isinstance(spec.attack, InverterAttack)


def plan(
    spec: TrialSpec,
    digests: Mapping[str, str],
    profile: Profile,
    profiles: Mapping[str, Profile] = MappingProxyType({}),
) -> dict[str, Stage]:
    """Return the stages of one trial in the order they run; `digests`: data set name -> manifest digest,
    `weights/NAME` -> their file's digest; `profiles`: those of stages that have another than `profile`."""
    spec = _canonical(spec)
    draft = _Draft(dataset_names(spec), weight_names(spec), digests, profile, profiles)
    data, attack = spec.data, spec.attack
    _pretrain(draft, spec)
    victim = _victim(draft, spec)
    draft.add("judge", {"data": data, "judge": spec.judge}, ("private",), {})
    f = {"data": data, "target": spec.target}
    if spec.evaluation.task == "reconstruction":
        draft.add("victims", {**f, "evaluation": _drawn(spec)}, ("private",), {"target": victim})
    needs = {"target": victim, "attack": _attack(draft, spec, victim)}
    if spec.evaluation.fisher:
        specs = {**f, "attack": attack, "release": spec.release, "fisher": spec.evaluation.fisher}
        is_search = isinstance(attack, MiaAttack)  # searches anew, with gradients by F's weights
        draft.add("fisher", specs, ("private",), {"target": victim} if is_search else needs, ("vgg", "alex"))
    evaluation = spec.evaluation.model_copy(update={"fisher": None})
    judged = {"release": spec.release, "judge": spec.judge, "evaluation": evaluation}
    needs |= {"victims": "victims", "judge": "judge"}
    networks = tuple(PublicNetworks.model_fields)
    draft.add("evaluation", {**f, "attack": attack, **judged}, ("private",), needs, networks)
    return draft.stages


def _pretrain(draft: "_Draft", spec: TrialSpec) -> None:
    """Add what makes or checks the public weights, if F starts from any."""
    target = spec.target
    if target.pretrain:
        specs = {"data": spec.data, "model": target.model, "pretrain": target.pretrain}
        draft.add("pretrain", specs, ("private", "pretrain"), {}, ("pretrain",))


def _victim(draft: "_Draft", spec: TrialSpec) -> str:
    """Add F's training; return the stage that leaves F as it is attacked."""
    trained = spec.target.model_copy(update={"snapshot": None})
    f, needs = {"data": spec.data, "target": trained}, {"pretrain": "pretrain"}
    if isinstance(spec.attack, JointAttack):  # the developer's F: one training leaves F and G
        # Rounding passes no gradient, so it is left to the evaluation.
        release = spec.release.model_copy(update={"decimals": None})
        draft.add("joint", {**f, "attack": spec.attack, "release": release}, ("private",), needs)
        return "joint"
    draft.add("target", f, ("private",), needs)
    if spec.target.snapshot is None:
        return "target"
    draft.add("snapshot", {**f, "target": spec.target}, ("private",), {"target": "target"})
    return "snapshot"


def _canonical(spec: TrialSpec) -> TrialSpec:
    """Leave out what changes nothing: a truncation of labels, a surrogate that no loss asks, how weights
    that were trained elsewhere would be trained here."""
    attack = spec.attack
    if isinstance(attack, InverterAttack) and not attack.losses.features:
        losses = attack.losses.model_copy(update={"surrogate": None})
        attack = attack.model_copy(update={"losses": losses})
    release = Release(labels_only=True) if spec.release.labels_only else spec.release
    target, pretrain = spec.target, spec.target.pretrain
    if pretrain and pretrain.weights:
        pretrain = pretrain.model_copy(update={"recipe": Recipe(), "seed": 0})
        target = target.model_copy(update={"pretrain": pretrain})
    return spec.model_copy(update={"attack": attack, "release": release, "target": target})


def _drawn(spec: TrialSpec) -> Evaluation:
    """Return what of the evaluation says which images are attacked: how many are shown does not, and class
    inference has no images at all."""
    if spec.evaluation.task == "class-inference":
        return Evaluation(task="class-inference")
    shown = Evaluation()
    return spec.evaluation.model_copy(
        update={"grid": shown.grid, "networks": shown.networks, "fisher": shown.fisher}
    )


@dataclass
class _Draft:
    """Stages of a trial as they are added."""

    names: Mapping[str, str]  # role -> data set
    weights: Mapping[str, str]  # role -> public weights
    digests: Mapping[str, str]
    profile: Profile
    profiles: Mapping[str, Profile]
    stages: dict[str, Stage] = field(default_factory=dict)

    def add(
        self,
        name: str,
        specs: Mapping[str, Spec],
        sets: tuple[str, ...],
        needs: Mapping[str, str],
        weights: tuple[str, ...] = (),
    ) -> None:
        """Add a stage; `needs`: role -> the stage that fills it, left out where there is none, as are data
        sets and weights."""
        roles = {role: self.names[role] for role in sets if role in self.names}
        public = {role: self.weights[role] for role in weights if role in self.weights}
        self.stages[name] = Stage(
            name=name,
            version=VERSIONS[name],
            specs={role: part.model_dump(mode="json") for role, part in specs.items()},
            datasets={role: {"name": one, "digest": self.digests[one]} for role, one in roles.items()},
            needs={role: self.stages[one].key for role, one in needs.items() if one in self.stages},
            weights={
                role: {"name": one, "digest": self.digests[f"weights/{one}"]} for role, one in public.items()
            },
            profile=asdict(self.profiles.get(name, self.profile)),
        )


def _attack(draft: _Draft, spec: TrialSpec, victim: str) -> str:
    """Add the attack's own stages; return the one that leaves an inverter or images."""
    data, target, attack = spec.data, spec.target, spec.attack
    if isinstance(attack, JointAttack):
        return "joint"
    if not isinstance(attack, InverterAttack):
        is_class = spec.evaluation.task == "class-inference"  # one-hot vectors, whatever is released
        release = Release() if is_class else spec.release
        specs = {"data": data, "target": target, "attack": attack, "release": release}
        needs = {"target": victim, "victims": "victims"}
        draft.add("optimization", {**specs, "evaluation": _drawn(spec)}, ("private",), needs)
        return "optimization"
    images = {"data": data, "target": target, "auxiliary": spec.auxiliary}
    sets = ("private", "auxiliary")
    draft.add("predictions", images, sets, {"target": victim})
    # An inverter that is not aligned never sees the release, so all its truncations share one training.
    release = spec.release if attack.align else Release()
    # What alignment means is in the release, so a full release has one inverter, aligned or not.
    specs = {**images, "attack": attack.model_copy(update={"align": True}), "release": release}
    if attack.losses.features and (surrogate := attack.losses.surrogate):
        answers = {**images, "surrogate": surrogate, "release": release}
        draft.add("surrogate", answers, sets, {"predictions": "predictions"})
    needs = {"predictions": "predictions", "surrogate": "surrogate"}
    if attack.selection == "victim-train":
        needs["target"] = victim
    draft.add("inversion", specs, sets, needs)
    return "inversion"

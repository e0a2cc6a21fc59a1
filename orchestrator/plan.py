"""From a resolved spec to the stages that compute it, with their keys. No torch: trial drivers live here.

A stage's key is SHA-256 over its name, its version, the whole sub-specs it reads, the digests of the data
sets it reads, the keys of its inputs and the numeric profile. Same key, same artifact.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from orchestrator.datasets.classes import auxiliary_dataset_name
from orchestrator.spec import Evaluation, InverterAttack, JointAttack, Release, Spec, TrialSpec

# Bump a version when what the stage computes changes; `tests/test_keys.py` holds the golden keys.
VERSIONS = {
    "pretrain": 1,
    "target": 1,
    "joint": 1,
    "judge": 1,
    "victims": 1,
    "predictions": 2,
    "surrogate": 1,
    "inversion": 2,
    "optimization": 1,
    "evaluation": 2,
}


@dataclass(frozen=True)
class Profile:
    """The numeric profile: what changes bits although the spec is the same."""

    device: str = "cpu"
    precision: str = "float32"
    workers: int = 1
    threads: int = 1


@dataclass(frozen=True)
class Stage:
    """One planned computation; `needs` lists the keys of its input artifacts by role."""

    name: str
    version: int
    specs: Mapping[str, dict]  # role -> canonical sub-spec
    datasets: Mapping[str, Mapping[str, str]]  # role -> name and digest of the manifest
    needs: Mapping[str, str]  # role -> stage key
    profile: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """SHA-256 hex of the canonical JSON of everything above."""
        return digest(asdict(self))


def canonical(value: object) -> str:
    """Return JSON with sorted keys and no spaces; refuses NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: object) -> str:
    """Return the SHA-256 hex digest of the canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def dataset_names(spec: TrialSpec) -> dict[str, str]:
    """Return the data sets that a trial reads: role (private, auxiliary, pretrain) -> name."""
    names = {"private": spec.data.dataset}
    other = auxiliary_dataset_name(spec.auxiliary, spec.data) if queries_auxiliary(spec) else None
    if other:
        names["auxiliary"] = other
    if spec.target.pretrain and spec.target.pretrain.dataset:
        names["pretrain"] = spec.target.pretrain.dataset
    return names


def queries_auxiliary(spec: TrialSpec) -> bool:
    """Return whether the adversary queries the victim with images of its own."""
    return isinstance(spec.attack, InverterAttack)


def plan(spec: TrialSpec, digests: Mapping[str, str], profile: Profile) -> dict[str, Stage]:
    """Return the stages of one trial in the order they run; `digests`: data set name -> manifest digest."""
    spec = _canonical(spec)
    draft = _Draft(dataset_names(spec), digests, profile)
    data, target, attack = spec.data, spec.target, spec.attack
    f = {"data": data, "target": target}
    if target.pretrain:
        specs = {"data": data, "model": target.model, "pretrain": target.pretrain}
        draft.add("pretrain", specs, ("private", "pretrain"), {})
    if isinstance(attack, JointAttack):  # the developer's F: one training leaves F and G
        victim = "joint"
        # Rounding passes no gradient, so it is left to the evaluation.
        release = spec.release.model_copy(update={"decimals": None})
        draft.add("joint", {**f, "attack": attack, "release": release}, ("private",), _PRETRAINED)
    else:
        victim = "target"
        draft.add("target", f, ("private",), _PRETRAINED)
    draft.add("judge", {"data": data, "judge": spec.judge}, ("private",), {})
    if spec.evaluation.task == "reconstruction":
        draft.add("victims", {**f, "evaluation": _drawn(spec)}, ("private",), {"target": victim})
    judged = {"release": spec.release, "judge": spec.judge, "evaluation": spec.evaluation}
    needs = {"target": victim, "victims": "victims", "judge": "judge", "attack": _attack(draft, spec)}
    draft.add("evaluation", {**f, "attack": attack, **judged}, ("private",), needs)
    return draft.stages


_PRETRAINED = {"pretrain": "pretrain"}


def _canonical(spec: TrialSpec) -> TrialSpec:
    """Leave out what changes nothing: a truncation of labels, a surrogate that no loss asks."""
    attack = spec.attack
    if isinstance(attack, InverterAttack) and not attack.losses.features:
        losses = attack.losses.model_copy(update={"surrogate": None})
        attack = attack.model_copy(update={"losses": losses})
    release = Release(labels_only=True) if spec.release.labels_only else spec.release
    return spec.model_copy(update={"attack": attack, "release": release})


def _drawn(spec: TrialSpec) -> Evaluation:
    """Return what of the evaluation says which images are attacked: how many are shown does not, and class
    inference has no images at all."""
    if spec.evaluation.task == "class-inference":
        return Evaluation(task="class-inference")
    return spec.evaluation.model_copy(update={"grid": Evaluation().grid})


@dataclass
class _Draft:
    """Stages of a trial as they are added."""

    names: Mapping[str, str]  # role -> data set
    digests: Mapping[str, str]
    profile: Profile
    stages: dict[str, Stage] = field(default_factory=dict)

    def add(
        self, name: str, specs: Mapping[str, Spec], sets: tuple[str, ...], needs: Mapping[str, str]
    ) -> None:
        """Add a stage; `needs`: role -> the stage that fills it, left out where there is none."""
        roles = {role: self.names[role] for role in sets if role in self.names}
        self.stages[name] = Stage(
            name=name,
            version=VERSIONS[name],
            specs={role: part.model_dump(mode="json") for role, part in specs.items()},
            datasets={role: {"name": one, "digest": self.digests[one]} for role, one in roles.items()},
            needs={role: self.stages[one].key for role, one in needs.items() if one in self.stages},
            profile=asdict(self.profile),
        )


def _attack(draft: _Draft, spec: TrialSpec) -> str:
    """Add the attack's own stages; return the one that leaves an inverter or images."""
    data, target, attack = spec.data, spec.target, spec.attack
    if isinstance(attack, JointAttack):
        return "joint"
    if not isinstance(attack, InverterAttack):
        is_class = spec.evaluation.task == "class-inference"  # one-hot vectors, whatever is released
        release = Release() if is_class else spec.release
        specs = {"data": data, "target": target, "attack": attack, "release": release}
        needs = {"target": "target", "victims": "victims"}
        draft.add("optimization", {**specs, "evaluation": _drawn(spec)}, ("private",), needs)
        return "optimization"
    images = {"data": data, "target": target, "auxiliary": spec.auxiliary}
    sets = ("private", "auxiliary")
    draft.add("predictions", images, sets, {"target": "target"})
    # An inverter that is not aligned never sees the release, so all its truncations share one training.
    release = spec.release if attack.align else Release()
    # What alignment means is in the release, so a full release has one inverter, aligned or not.
    specs = {**images, "attack": attack.model_copy(update={"align": True}), "release": release}
    if attack.losses.features and (surrogate := attack.losses.surrogate):
        answers = {**images, "surrogate": surrogate, "release": release}
        draft.add("surrogate", answers, sets, {"predictions": "predictions"})
    needs = {"predictions": "predictions", "surrogate": "surrogate"}
    if attack.selection == "victim-train":
        needs["target"] = "target"
    draft.add("inversion", specs, sets, needs)
    return "inversion"

"""Stage graph: the plan of a trial with its keys. No torch: trial drivers live here.

A stage's key is SHA-256 over its name, its version, the whole sub-specs that it reads, the digests of its
data sets and weights, the keys of its inputs and the numeric profile. Same key, same artifact.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any

from orchestrator.config import Spec, TrialSpec
from orchestrator.config.normalise import PlannedSpec
from orchestrator.datasets.classes import auxiliary_dataset_name
from orchestrator.stages.stage import Profile, Stage, StageFailed
from orchestrator.stages.table import ATTACK, IMAGES, MODELS, STAGES, TARGET, Kind
from orchestrator.stages.uses import Use

__all__ = [
    "ATTACK",
    "Choose",
    "IMAGES",
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
    "in_float32",
    "plan",
    "weight_names",
]


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


Choose = Callable[[str, Sequence[float]], str]
"""Returns the precision of a training on a kind of device of networks of some widths."""


def in_float32(device: str, widths: Sequence[float]) -> str:
    """Return float32 on every device for every width."""
    return "float32"


class Planner:
    """Plans trials. A stage that several of them have is one object, whose key is computed once.

    `digests`: data set name -> manifest digest, `weights/NAME` -> digest of their file, of all trials when
    they are planned; `profiles`: those of stages (by name) that have another than `profile`; `choose`: what a
    stage that trains has for the precision `auto`, in place of which every other stage has float32.
    """

    def __init__(
        self,
        digests: Mapping[str, str],
        profile: Profile,
        profiles: Mapping[str, Profile] = MappingProxyType({}),
        choose: Choose = in_float32,
    ) -> None:
        self._digests, self._choose = digests, choose
        self._profiles = {name: profiles.get(name, profile) for name in STAGES}
        self._plain: dict[Profile, dict[str, str | int]] = {}  # stages share it
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
                profile=self._profile(kind, specs),
                instance=instance,
                compared=compared,
            )
        return self._stages[same]

    def _profile(self, kind: Kind, specs: Mapping[str, Any]) -> dict[str, str | int]:
        """Return the numeric profile of a stage with these sub-specs."""
        profile = self._profiles[kind.name]
        if profile.precision == "auto":
            widths = [getattr(specs[role], "model", specs[role]).width for role in kind.trains]
            precision = self._choose(profile.device, widths) if widths else "float32"
            profile = replace(profile, precision=precision)
        if profile not in self._plain:
            self._plain[profile] = asdict(profile)
        return self._plain[profile]


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

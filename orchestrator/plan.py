"""From a resolved spec to the stages that compute it, with their keys. No torch: trial drivers live here.

A stage's key is SHA-256 over its name, its version, the whole sub-specs it reads, the digests of the data
sets it reads, the keys of its inputs and the numeric profile. Same key, same artifact.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from orchestrator.datasets.classes import auxiliary_dataset_name
from orchestrator.spec import Release, Spec, TrialSpec

# Bump a version when what the stage computes changes; `tests/test_keys.py` holds the golden keys.
VERSIONS = {
    "pretrain": 1,
    "target": 1,
    "judge": 1,
    "predictions": 1,
    "victims": 1,
    "inversion": 1,
    "evaluation": 1,
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
    if other := auxiliary_dataset_name(spec.auxiliary, spec.data):
        names["auxiliary"] = other
    if spec.target.pretrain and spec.target.pretrain.dataset:
        names["pretrain"] = spec.target.pretrain.dataset
    return names


def plan(spec: TrialSpec, digests: Mapping[str, str], profile: Profile) -> dict[str, Stage]:
    """Return the stages of one trial in the order they run; `digests`: data set name -> manifest digest."""
    stages: dict[str, Stage] = {}
    names = dataset_names(spec)

    def add(name: str, specs: Mapping[str, Spec], sets: tuple[str, ...], needs: tuple[str, ...] = ()) -> None:
        stages[name] = Stage(
            name=name,
            version=VERSIONS[name],
            specs={role: part.model_dump(mode="json") for role, part in specs.items()},
            datasets={
                role: {"name": names[role], "digest": digests[names[role]]} for role in sets if role in names
            },
            needs={role: stages[role].key for role in needs if role in stages},
            profile=asdict(profile),
        )

    data, target = spec.data, spec.target
    # An inverter that is not aligned never sees the release, so all its truncations share one training.
    training_release = spec.release if spec.attack.align else Release()
    if target.pretrain:
        add(
            "pretrain",
            {"data": data, "model": target.model, "pretrain": target.pretrain},
            ("private", "pretrain"),
        )
    add("target", {"data": data, "target": target}, ("private",), ("pretrain",))
    add("judge", {"data": data, "judge": spec.judge}, ("private",))
    images = {"data": data, "target": target, "auxiliary": spec.auxiliary}
    add("predictions", images, ("private", "auxiliary"), ("target",))
    add("victims", {"data": data, "target": target, "evaluation": spec.evaluation}, ("private",), ("target",))
    attack = {**images, "attack": spec.attack, "release": training_release}
    add("inversion", attack, ("private", "auxiliary"), ("predictions",))
    judged = {"release": spec.release, "judge": spec.judge, "evaluation": spec.evaluation}
    add(
        "evaluation",
        {"data": data, "target": target, "attack": spec.attack, **judged},
        ("private",),
        ("victims", "inversion", "judge"),
    )
    return stages

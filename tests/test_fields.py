"""Spans modules: each field of a trial and of a stage's resources, changed alone, and the keys it changes.

A field that no stage reads, or that a stage reads and its key does not hold, is found here: the table names
every field of `TrialSpec`, of every attack and of every defense.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import ValidationError

from orchestrator.config import ATTACK_SPECS, Spec, TrialSpec
from orchestrator.config.normalise import normalise
from orchestrator.config.resources import Resources, StageResources
from orchestrator.datasets import Location
from orchestrator.stages import runner
from orchestrator.stages.graph import STAGES, Stage, plan
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.sweep.profiles import profile_of, profiles_of
from orchestrator.training.kernels import use_profile
from orchestrator.training.world import World
from tests import tiny

LOMMA = ("lomma-g", "lomma-k")
LATENT = tuple(name for name, one in ATTACK_SPECS.items() if one.needs_prior)
NETWORKS = {name: name for name in ("inception", "facenet", "vgg", "alex")}
RECIPE = {"epochs": 3, "batch_size": 64, "learning_rate": 0.003}
SURROGATE = {"model": tiny.DIGIT, "recipe": RECIPE, "seed": 11}
LOSSES = {"adversarial": 0.1, "features": 0.2, "total_variation": 0.3, "surrogate": SURROGATE}
ATTACKS: dict[str, dict[str, Any]] = {
    "inverter": {"model": tiny.DIGIT, "recipe": RECIPE, "losses": LOSSES, "seed": 12},
    "joint": {"name": "joint", "model": tiny.DIGIT, "seed": 12},
    "mia": {"name": "mia", "noise": 0.1, "seed": 12},
    "optimization": {"name": "optimization", "seed": 12},
    **{name: {"name": name, "seed": 12} for name in LATENT},
    **{name: {"name": name, "seed": 12, "identity": {"students": {"other": SURROGATE}}} for name in LOMMA},
}
PRIOR = {"model": {"name": "gmi"}, "seed": 13}
CONDITIONAL = {"model": {"name": "plg"}, "loss": "plg", "seed": 13}
OF_CLASSES = ("images_per_class", "inversion_weight", "output_range")
NAME = "other"  # of the further judge and the student
STUDENT_RECIPES = [f"attack:{name}.identity.students.{NAME}.recipe" for name in LOMMA]
JUDGES = {
    "classifiers": {NAME: {"model": tiny.DIGIT, "recipe": RECIPE, "seed": 14}},
    "recogniser": {"weights": "face", "seed": 15},
}
COMPOSED = {"mid": {}, "bido": {}, "smoothing": {"start": 0.1, "full": 0.5}, "erasing": {}}
EVERYTHING: dict[str, Any] = {
    "target.recipe": RECIPE,
    "target.defense": COMPOSED,
    "target.snapshots": [1],
    "release": {"truncation": 1, "decimals": 3},
    "auxiliary.kind": "distinct",
    "auxiliary.dataset": "patches",
    "prior": PRIOR,  # of attacks that search one
    "attack": ATTACKS["inverter"],
    "judges": JUDGES,
    "evaluation.networks": NETWORKS,
    "evaluation.fisher": {},
}
PROFILED = {"evaluation.task": "class-inference"}
INFERENCE = {**PROFILED, "evaluation.fisher": None}
WITHOUT_CRITIC = {"attack": {**ATTACKS["gmi"], "prior_weight": 0.0}, **PROFILED}
PLAIN: dict[str, Any] = {"classes": 3, "model": tiny.DIGIT}
STARTED: dict[str, Any] = {"model": tiny.DIGIT, "weights": "public"}
STARTS: Mapping[str, dict[str, Any]] = {
    "target.defense.dp.": {"target.defense": {"dp": {}}, "target.budget": "full"},
    "target.defense.dp": {"target.defense": {}, "target.budget": "full"},
    "target.defense.loft": {"target.defense": {"loft": {}}},
    "target.defense.rolss": {"target.model": {"name": "resnet18"}, "target.budget": "layer1"},
    "data.class_order": {"data.class_seed": 0},
    "target.weights": {"target": PLAIN},
    "target.program": {"target": {"classes": 3, "program": "public"}, "evaluation.fisher": None},
    "target.service": {"target": {"classes": 3, "service": "public"}, "evaluation.fisher": None},
    "target.minimum_accuracy": {"target": {**PLAIN, "weights": "public"}},
    "judge.trained": {"judge": STARTED},
    "judge.minimum_accuracy": {"judge": {**STARTED, "trained": False}},
    f"judges.classifiers.{NAME}.trained": {"judges": {"classifiers": {NAME: STARTED}}},
    f"judges.classifiers.{NAME}.minimum_accuracy": {
        "judges": {"classifiers": {NAME: {**STARTED, "trained": False}}}
    },
    "target.pretrain.minimum_accuracy": {"target.pretrain.dataset": "faces"},
    "release.labels_only": {"evaluation.fisher": None},
    "release.shield": {"release.shield": {"seed": 16}, "evaluation.fisher": None},
    "prior.": {"attack": ATTACKS["gmi"], **PROFILED},
    "prior.weights": WITHOUT_CRITIC,
    "prior.crop": {**WITHOUT_CRITIC, "prior.weights": "brought"},
    "prior.penalty": {"attack": ATTACKS["gmi"], "prior.loss": "wgan-gp", **PROFILED},
    "prior.teacher_mode": {"attack": ATTACKS["kedmi"], "prior.loss": "kedmi", **PROFILED},
    **{
        f"prior.{field}": {"attack": ATTACKS["plg-mi"], "prior": CONDITIONAL, **INFERENCE}
        for field in OF_CLASSES
    },
    "evaluation.classes": {"attack": ATTACKS["mia"], **INFERENCE},
    "evaluation.candidates": {"attack": ATTACKS["mia"], **INFERENCE},
    "attack:inverter.offset_learning_rate": {"attack.offset_learnable": True},
    "attack:joint.": {"attack": ATTACKS["joint"], "target.defense": {}},
    "attack:joint.offset_learning_rate": {
        "attack": {**ATTACKS["joint"], "offset_learnable": True},
        "target.defense": {},
    },
    "attack:mia.": {"attack": ATTACKS["mia"], **INFERENCE},
    "attack:optimization.": {"attack": ATTACKS["optimization"], "evaluation.fisher": None},
    **{
        f"attack:{name}.": {"attack": ATTACKS[name], **INFERENCE}
        for name in ("gmi", "ppa", "brepmi", "mirror", "vmi", "mirror-black-box", "lomma-g")
    },
    **{
        f"attack:{name}.": {"attack": ATTACKS[name], "prior.loss": "kedmi", **INFERENCE}
        for name in ("kedmi", "lomma-k")
    },
    "attack:plg-mi.": {"attack": ATTACKS["plg-mi"], "prior": CONDITIONAL, **INFERENCE},
}
"""Beginning of a path -> what is set beside `EVERYTHING` so that the field is used; the longest applies."""

OTHERS: Mapping[str, Any] = {
    "data.dataset": "faces",
    "data.split": "even",
    "target.weights": "public",
    "target.program": "face",
    "target.service": "face",
    "target.pretrain.weights": "public",
    "target.pretrain.dataset": "faces",
    "target.budget": "block2",
    "target.snapshots": [1, 2],
    "target.snapshot": 1,
    "auxiliary.dataset": "photo-patches",
    "prior.dataset": "faces",
    "prior.weights": "brought",
    "prior.model.name": "other",
    "attack:ppa.betas": [0.9, 0.999],
    "attack:brepmi.growth": 2.0,
    **{f"attack:{name}.clip": None for name in ("kedmi", "lomma-k")},
    **{f"attack:{name}.identity.loss": "augmented" for name in LOMMA},
    **{f"attack:{name}.identity.students.{NAME}.weights": "public" for name in LOMMA},
    "evaluation.classes": [1],
    "evaluation.fisher.distances": ["l1"],
    "evaluation.fisher.iterations": [1],
    "evaluation.networks.vgg": None,
    "judges.recogniser.weights": "other-face",
    "judge.weights": "public",
    f"judges.classifiers.{NAME}.weights": "public",
    "target.defense.dp": {},
    "target.defense.erasing.elongation": 2.0,
    **{f"evaluation.networks.{name}": f"other-{name}" for name in NETWORKS},
    **{
        f"{recipe}.milestones": [1]
        for recipe in (
            "target.recipe",
            "target.pretrain.recipe",
            "judge.recipe",
            f"judges.classifiers.{NAME}.recipe",
            "attack:inverter.recipe",
            "attack:inverter.losses.surrogate.recipe",
            *STUDENT_RECIPES,
        )
    },
    **{
        f"{model}.name": "vgg16"
        for model in (
            "target.model",
            "judge.model",
            f"judges.classifiers.{NAME}.model",
            "attack:inverter.losses.surrogate.model",
            *(f"attack:{name}.identity.students.{NAME}.model" for name in LOMMA),
        )
    },
    **{f"attack:{name}.model.name": "ami-face" for name in ("inverter", "joint")},
}
"""Path -> another value, where none is made of the field's own."""

MEASURED = {"evaluation", "judgement", "recognition"}
JUDGED = {"retrieval", *MEASURED}
REBUILT = {"reconstructions", *JUDGED}
ATTACKED = {"inversion", "fisher", *REBUILT}
SEARCHED = {"optimization", *JUDGED}
RELEASED = {"surrogate", "yardsticks", *ATTACKED}
QUERIED = {"predictions", *RELEASED}
TRAINED = {"target", "victims", *QUERIED}
DRAWN = {"victims", "yardsticks", *REBUILT}
EVERY = {"pretrain", "judge", "descriptors", *TRAINED}
READERS: Mapping[str, set[str]] = {
    "data": EVERY,
    **{f"data.{name}": EVERY - {"descriptors"} for name in ("class_pool", "class_seed", "class_order")},
    "target": TRAINED,
    "target.model": {"pretrain", *TRAINED},
    "target.weights": {"given", *TRAINED},
    "target.program": {"given", *TRAINED} - {"target", "fisher"},
    "target.service": {"given", *TRAINED} - {"target", "fisher"},
    "target.minimum_accuracy": {"given", *TRAINED} - {"target"},
    "target.pretrain": {"pretrain", *TRAINED},
    "target.snapshot": {"snapshot", *TRAINED} - {"target"},
    "target.snapshots": TRAINED,
    "target.defense.dp.delta": TRAINED,
    "release": RELEASED,
    "release.labels_only": RELEASED - {"fisher"},
    "release.shield": {"shield", *RELEASED} - {"fisher"},
    "auxiliary": QUERIED,
    "prior": {"prior", "prior_quality", "fisher", *SEARCHED},
    "prior.crop": {"fisher", *SEARCHED},
    **{f"prior.{field}": {"prior", "prior_quality", *SEARCHED} for field in OF_CLASSES},
    "attack:inverter": ATTACKED,
    "attack:inverter.align": RELEASED
    - {"yardsticks"},  # unaligned, the surrogate learns from full scores too
    "attack:inverter.losses.surrogate": RELEASED - {"yardsticks"},
    "attack:joint": {"joint", "fisher", *DRAWN},
    "attack:mia": SEARCHED,
    "attack:mia.start": {"predictions", "yardsticks", *SEARCHED},  # the auxiliary mean: it has images
    "attack:optimization": SEARCHED,
    **{f"attack:{name}": SEARCHED for name in LATENT},
    **{f"attack:{name}.identity.students": {"student", *SEARCHED} for name in LOMMA},
    "judge": {"judge", *JUDGED},
    "judges.classifiers": {"judge", "judgement"},
    "judges.recogniser": {"recognition"},
    "judges.recogniser.weights": {"descriptors", "recognition"},
    "evaluation": MEASURED,
    "evaluation.images": DRAWN,
    "evaluation.seed": DRAWN,
    "evaluation.task": DRAWN,
    "evaluation.classes": {"yardsticks", *SEARCHED},
    "evaluation.candidates": {"yardsticks", *SEARCHED},
    "evaluation.fisher": {"fisher"},
    "evaluation.networks.vgg": {"fisher", *MEASURED},
    "evaluation.networks.alex": {"fisher", *MEASURED},
}
"""Beginning of a path -> the stages whose keys its fields change; the longest applies."""

NO_IMAGES = "is of a classifier's images, and an inverter reads scores"
FIXED = {
    "attack:inverter.recipe.augmentation": "changes images, but an inverter learns from scores",
    "attack:inverter.model.scaling": NO_IMAGES,
    "attack:joint.model.scaling": NO_IMAGES,
    "prior.model.scaling": "is of a classifier's images, and a generator reads latents",
}
"""Path -> the refusal of every other value."""


def specs_of(annotation: Any) -> Iterator[type[Spec]]:
    """Yield the specs that a field may hold."""
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, Spec):
            yield one


def fields_of(spec: type[Spec], path: str) -> Iterator[tuple[str, Any]]:
    """Yield path and annotation of every field that holds no spec itself, of a spec and of those in it."""
    for name, field in spec.model_fields.items():
        inner = list(specs_of(field.annotation))
        yield from ((f"{path}{name}", field.annotation),) if not inner else ()
        below = f"{path}{name}.{NAME}." if get_origin(field.annotation) is dict else f"{path}{name}."
        for one in inner:
            yield from fields_of(one, below)


def every_field() -> dict[str, Any]:
    """Return path -> annotation; those of attacks begin with `attack:NAME`, whose name is no field."""
    found = {path: kind for path, kind in fields_of(TrialSpec, "") if not path.startswith("attack")}
    for name, spec in ATTACK_SPECS.items():
        found |= {
            path: kind for path, kind in fields_of(spec, f"attack:{name}.") if path != f"attack:{name}.name"
        }
    return found


FIELDS = every_field()


def longest(table: Mapping[str, Any], path: str) -> Any:
    """Return the value of the longest beginning of a path; None without one."""
    return table.get(max((begin for begin in table if path.startswith(begin)), key=len, default=""))


def another(path: str, value: Any) -> Any:
    """Return another value of a field."""
    if path in OTHERS:
        return OTHERS[path]
    kind = next((one for one in (FIELDS[path], *get_args(FIELDS[path])) if get_origin(one) is Literal), None)
    if kind is not None:
        return next(word for word in get_args(kind) if word != value)
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else value / 2 if value else 0.25


def planned(changes: dict[str, Any], resources: Resources | None = None) -> dict[str, Stage]:
    """Return the stages of the trial that uses everything, with dotted paths changed."""
    resources = resources or Resources()
    spec = tiny.spec({**EVERYTHING, **changes})
    names = {"digits", "faces", "patches", "photo-patches"}
    weights = {"public", "face", "other-face", "brought", *NETWORKS, *(f"other-{name}" for name in NETWORKS)}
    digests = {name: name for name in names} | {f"weights/{name}": name for name in weights}
    return plan(normalise(spec), digests, profile_of(resources), profiles_of(resources))


def differing(before: Mapping[str, Stage], after: Mapping[str, Stage]) -> set[str]:
    """Return the stages that only one of two trials has."""
    kept = {stage.key for stage in before.values()} & {stage.key for stage in after.values()}
    return {stage.name for stage in (*before.values(), *after.values()) if stage.key not in kept}


def now(start: dict[str, Any], path: str) -> Any:
    """Return the value of a field in the trial that uses everything."""
    value: Any = tiny.spec({**EVERYTHING, **start})
    for name in path.split("."):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return value


@pytest.mark.parametrize("path", FIELDS)
def test_a_field_changes_the_keys_of_what_reads_it(path: str) -> None:
    start = dict(longest(STARTS, path) or {})
    dotted = "attack." + path.partition(".")[2] if path.startswith("attack:") else path
    changes = {**start, dotted: another(path, now(start, dotted))}
    if path in FIXED:
        with pytest.raises(ValidationError, match=FIXED[path]):
            planned(changes)
        return
    assert differing(planned(start), planned(changes)) == longest(READERS, path), changes[dotted]


def test_no_seed_of_the_tiny_trial_is_a_default_or_anothers() -> None:
    paths = [path for path in FIELDS if path.endswith("seed") and not path.startswith("attack:")]
    seeds = [now(longest(STARTS, path) or {}, path) for path in paths]
    seeds.append(tiny.spec().attack.seed)
    assert len({0, 1_000_003, *seeds}) == 2 + len(seeds)


def after(stages: Mapping[str, Stage], name: str) -> set[str]:
    """Return the names of a stage and of those that need what it leaves, by their keys."""
    reached = {name}
    keys = {stage.key for stage in stages.values() if stage.name == name}
    for stage in stages.values():  # in the order they run
        if keys & set(stage.needs.values()):
            reached.add(stage.name)
            keys.add(stage.key)
    return reached


RESOURCES = {"workers": 2, "threads": 2, "gpus_per_worker": 1.0, "precision": "bfloat16"}
"""Field of a stage's own resources -> another value."""


def test_every_resource_of_a_stage_is_in_the_table() -> None:
    assert RESOURCES.keys() == StageResources.model_fields.keys()


@pytest.mark.parametrize("field", RESOURCES)
@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_own_resources_change_its_key_and_those_after(stage: str, field: str) -> None:
    starts: dict[str, dict[str, Any]] = {
        "joint": STARTS["attack:joint."],
        "optimization": STARTS["attack:optimization."],
        "given": STARTS["target.minimum_accuracy"],
        "snapshot": {"target.snapshot": 1},
        "prior": STARTS["prior."],
        "prior_quality": STARTS["prior."],
        "shield": STARTS["release.shield"],
        "answers": STARTS["attack:lomma-g."],
        "student": STARTS["attack:lomma-g."],
    }
    start = starts.get(stage, {})
    changed = {field: RESOURCES[field]}
    plain = planned(start)
    own, everywhere = (
        planned(start, Resources.model_validate(raw)) for raw in ({"stages": {stage: changed}}, changed)
    )
    assert differing(plain, own) == after(plain, stage)
    label = next(label for label, one in plain.items() if one.name == stage)
    assert everywhere[label].profile == own[label].profile
    assert differing(plain, everywhere) == {one.name for one in plain.values()}


@pytest.mark.parametrize(
    "resources",
    [{"groups": 3}, {"checkpoint_seconds": 1.0}, {"stages": {"evaluation": {"gpus_per_worker": 0.0}}}],
    ids=str,
)
def test_resources_outside_the_numeric_profile_change_no_key(resources: dict[str, Any]) -> None:
    assert differing(planned({}), planned({}, Resources.model_validate(resources))) == set()


SMALL_PRIOR = {"prior": {"model": {"name": "gmi", "width": 0.02}, "epochs": 1}, **INFERENCE}
SMALL_CONDITIONAL: dict[str, Any] = {
    **INFERENCE,
    "prior": {"loss": "plg", "model": {"name": "plg", "width": 0.02}, "epochs": 1, "batch_size": 8},
    "prior.critic_steps": 1,
    "prior.images_per_class": 5,
}
LEFT: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("pretrain", {}, {"target.pretrain.seed": 20}),
    ("target", {}, {"target.seed": 20}),
    ("target", {}, {"data.class_seed": 20}),
    ("target", {"target.defense": {"mid": {}}}, {"target.defense": {"mid": {"weight": 0.1}}}),
    ("judge", {}, {"judge.seed": 20}),
    ("victims", {}, {"evaluation.seed": 20}),
    ("predictions", {}, {"auxiliary.seed": 20}),
    ("prior", {"attack": ATTACKS["gmi"], **SMALL_PRIOR}, {"prior.seed": 20}),
    (
        "prior",
        {"attack": ATTACKS["kedmi"], **SMALL_PRIOR, "prior.loss": "kedmi", "target.defense": {"mid": {}}},
        {"prior.teacher_mode": "train"},
    ),
    *(
        ("prior", {"attack": ATTACKS["plg-mi"], **SMALL_CONDITIONAL}, {f"prior.{field}": value})
        for field, value in (
            ("images_per_class", 6),
            ("inversion_weight", 9.0),
            ("output_range", "released"),
        )
    ),
    ("surrogate", {"attack": ATTACKS["inverter"]}, {"attack.losses.surrogate.seed": 20}),
    ("answers", {"attack": ATTACKS["lomma-g"], **SMALL_PRIOR}, {"target.seed": 20}),
    (
        f"student.{NAME}",
        {"attack": ATTACKS["lomma-g"], **SMALL_PRIOR},
        {f"attack.identity.students.{NAME}.seed": 20},
    ),
    (
        "optimization",
        {"attack": {**ATTACKS["lomma-g"], "steps": 9, "identities": 1}, **SMALL_PRIOR},
        {f"attack.identity.students.{NAME}.seed": 20},
    ),
    ("inversion", {}, {"attack.seed": 20}),
    ("inversion", {}, {"attack.recipe.learning_rate": 0.001}),
    ("inversion", {"release": {}}, {"release": {"decimals": 1}}),
    ("joint", {"attack": ATTACKS["joint"]}, {"attack.seed": 20}),
    ("reconstructions", {}, {"attack.seed": 20}),
    ("retrieval", {}, {"judge.seed": 20}),
    ("yardsticks", {}, {"evaluation.seed": 20}),
    ("yardsticks", {}, {"auxiliary.seed": 20}),
    ("yardsticks", {"release": {}}, {"release": {"decimals": 1}}),
    ("yardsticks", {"evaluation.task": "class-inference"}, {"judge.seed": 20}),
    ("optimization", {"attack": {**ATTACKS["optimization"], "steps": 2}}, {"attack.seed": 20}),
    ("optimization", {"attack": {**ATTACKS["mia"], "steps": 2}, **INFERENCE}, {"attack.seed": 20}),
]
"""Stage, what is set for it, and a change of what it leaves; most are seeds that must be drawn from."""


def files_left(name: str, changes: dict[str, Any], folder: Path) -> dict[str, str]:
    """Build a stage of the tiny trial and what it needs; return file -> digest."""
    use_profile(tiny.PROFILE.threads)
    store, stages = Artifacts(DirectoryBlobs(folder)), tiny.stages(tiny.spec(changes))
    needed = {stages[name].key}
    for stage in reversed(stages.values()):
        needed |= set(stage.needs.values()) if stage.key in needed else set()
    for stage in stages.values():
        if stage.key in needed and store.find(stage.key) is None:
            runner.run(stage, World(), store, Location())
    artifact = store.find(stages[name].key)
    assert artifact is not None
    return {file.name: file.sha256 for file in artifact.files.values()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store that the tests of this file share."""
    return tmp_path_factory.mktemp("fields")


@pytest.mark.parametrize(("stage", "start", "changes"), LEFT, ids=str)
def test_a_field_changes_what_its_stage_leaves(
    stage: str, start: dict[str, Any], changes: dict[str, Any], folder: Path
) -> None:
    before, changed = (files_left(stage, extra, folder) for extra in (start, {**start, **changes}))
    assert before.keys() == changed.keys()
    assert before != changed

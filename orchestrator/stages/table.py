"""Table of stages: a row for each, which holds everything that others ask of it. No torch.

The table reads like a method section. What a stage computes is `run` in the file of its name beside this one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.config import PublicNetworks
from orchestrator.config.normalise import PlannedSpec
from orchestrator.metrics.names import JUDGEMENT, evaluation_version
from orchestrator.models.generator_outlines import Shapes
from orchestrator.stages import uses, work
from orchestrator.stages.uses import Use
from orchestrator.stages.workload import Work

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

    trains: tuple[str, ...] = ()
    """Roles of the sub-specs whose networks it trains, in the precision of its profile; other stages compute
    in float32."""

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


_ROWS = (
    Kind(
        "pretrain",
        version=2,
        reads=("data", "model", "pretrain"),
        datasets=("private", "pretrain"),
        weights=("pretrain",),
        metrics=("pretrain",),
        uses=uses.pretrain,
        trains=("model",),
        work=work.pretrain,
    ),
    Kind(
        "target",
        version=3,
        reads=("data", "target"),
        needs={"pretrain": ("pretrain",)},
        metrics=("target",),
        uses=uses.target,
        trains=("target",),
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
        trains=("target", "attack"),
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
        trains=("judge",),
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
        version=2,
        reads=("data", "prior", "target"),
        needs={"target": TARGET},
        datasets=("prior",),
        metrics=("prior",),
        uses=uses.prior,
        trains=("prior",),
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
        trains=("student",),
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
        trains=("surrogate",),
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
        trains=("attack",),
        work=work.inversion,
    ),
    Kind(
        "optimization",
        version=2,
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
        version=2,
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

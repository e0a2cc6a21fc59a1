"""Unused settings: what a spec sets although another of its settings leaves it without effect."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from orchestrator.config import TrialSpec
from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.config.prior import OWN

Reads = Callable[[Any], object]
"""Whether a setting has an effect, by the spec that decides."""

RECIPES = (
    "target.recipe",
    "target.pretrain.recipe",
    "attack.recipe",
    "attack.losses.surrogate.recipe",
    "judge.recipe",
)

DESCENT = (
    *("learning_rate", "momentum", "betas", "crop", "identities", "augmentations"),
    *("coupling", "samples", "divergence_weight"),
)
"""Settings of attacks that steps alone read."""

TRAINING = ("loss", "dataset", "batch_size", "learning_rate", "seed")
"""Settings of a prior that is trained here whose defaults no loss changes."""

BY_LOSS = ("model", "epochs", "critic_steps", "critic_learning_rate", "average", "augmentation")
"""Settings of a prior that is trained here whose defaults a loss changes."""

OTHERS = ("generic", "distinct", "augmented")
"""Kinds of auxiliary images that another data set may give."""


@dataclass(frozen=True)
class Row:
    """A setting that has no effect by itself."""

    section: str
    """Path of the spec that holds it; empty for a section itself."""

    field: str

    is_read: Reads
    needs: str
    """What it needs to have an effect, as the object of "needs"."""

    decided_by: str | None = None
    """Path of the spec that decides; None: the one that holds it."""

    @property
    def path(self) -> str:
        """Path of the setting."""
        return f"{self.section}.{self.field}".removeprefix(".")


def _is_of(loss: str) -> Reads:
    return lambda own: own.loss == loss and not own.weights


def _may_have_mapping(prior: Any) -> object:
    """Generators that are trained here have none; of staged weights the plan of a study sees the name."""
    return prior is not None and prior.weights


_ROWS = (
    Row(
        "auxiliary",
        "dataset",
        lambda own: own.kind in OTHERS,
        "auxiliary.kind generic, distinct or augmented",
    ),
    Row(
        "auxiliary",
        "overlap",
        lambda own: own.dataset and own.kind in ("generic", "augmented"),
        "auxiliary.dataset of the kind generic or augmented",
    ),
    *(
        Row("release", field, lambda own: not own.labels_only, "release.labels_only=false")
        for field in ("truncation", "decimals", "renormalised")
    ),
    *(Row(path, "momentum", lambda own: own.optimizer == "sgd", f"{path}.optimizer=sgd") for path in RECIPES),
    Row(
        "target",
        "minimum_accuracy",
        lambda own: own.given,
        "target.weights, target.program or target.service",
    ),
    *(
        Row("target.pretrain", field, lambda own: not own.weights, "target.pretrain without weights")
        for field in ("recipe", "seed")
    ),
    Row("", "prior", lambda own: own.attack.needs_prior, "an attack that searches one"),
    Row("prior", "crop", lambda own: own.weights, "prior.weights"),
    *(Row("prior", field, lambda own: not own.weights, "a prior without weights") for field in TRAINING),
    *(
        Row("prior", field, lambda own: not own.weights or own.loss != "hinge", "a prior without weights")
        for field in BY_LOSS  # another loss has its own: that is refused then
    ),
    *(
        Row("prior", field, _is_of(loss), f"prior.loss={loss}")
        for loss, fields in OWN.items()
        for field in fields
    ),
    Row("target.defense.bido", "epsilon", lambda own: own.kind == "hsic", "target.defense.bido.kind=hsic"),
    Row(
        "target.defense.smoothing",
        "ramp",
        lambda own: own.start < own.full,
        "target.defense.smoothing.start below full",
    ),
    Row("attack", "offset_learning_rate", lambda own: own.offset_learnable, "attack.offset_learnable=true"),
    Row(
        "attack.losses", "adversarial_form", lambda own: own.adversarial, "attack.losses.adversarial above 0"
    ),
    Row("attack.losses", "surrogate", lambda own: own.features, "attack.losses.features above 0"),
    Row("attack", "process_every", lambda own: own.process != "none", "attack.process other than none"),
    Row("attack", "alpha", lambda own: own.alpha_weight, "attack.alpha_weight above 0"),
    Row("attack", "variation_beta", lambda own: own.variation_weight, "attack.variation_weight above 0"),
    Row(
        "attack",
        "treat_every",
        lambda own: own.blur or own.clip_norm or own.clip_contribution,
        "attack.blur, attack.clip_norm or attack.clip_contribution above 0",
    ),
    *(Row("attack", field, lambda own: own.steps, "attack.steps above 0") for field in DESCENT),
    Row(
        "attack",
        "clip",  # PPA's pool and KEDMI's draws are clipped too
        lambda own: own.name not in ("gmi", "lomma-g") or own.steps,
        "attack.steps above 0",
    ),
    Row(
        "attack",
        "mirrors",  # PPA's pool is mirrored too
        lambda own: own.name != "mirror" or own.steps,
        "attack.steps above 0",
    ),
    Row(
        "attack",
        "deviations",
        lambda own: getattr(own, "steps", 0) or getattr(own, "generations", 0),
        "attack.steps or attack.generations above 0",
    ),
    *(
        Row("attack", field, lambda own: getattr(own, "generations", 1), "attack.generations above 0")
        for field in ("population", "score", "crossover", "mutation")  # MIA has a score too
    ),
    *(
        Row(
            "attack",
            field,
            lambda own: own.generations and own.mutation,
            "attack.generations and attack.mutation above 0",
        )
        for field in ("reach", "moves")
    ),
    *(
        Row("attack", field, lambda own: own.family == "flow", "attack.family=flow")
        for field in ("levels", "couplings", "width", "normalisation")
    ),
    *(
        Row("attack", field, _may_have_mapping, "prior.weights of a generator with a mapping", "prior")
        for field in ("psi", "cutoff", "truncation")
    ),
    Row("attack", "views", lambda own: own.starts > 1, "attack.starts above 1"),
    Row(
        "attack.identity",
        "students",
        lambda own: own.loss != "logit",
        "attack.identity.loss full or augmented",
    ),
    Row(
        "attack.identity",
        "feature_weight",
        lambda own: own.loss != "augmented",
        "attack.identity.loss full or logit",
    ),
    Row("attack", "beside", lambda own: own.prior_weight, "attack.prior_weight above 0"),
    Row(
        "attack", "candidates", lambda own: own.candidates > 1, "evaluation.candidates above 1", "evaluation"
    ),
)

_BY_PARTS: dict[tuple[str, str | None], list[Row]] = {}
"""Rows by the paths of the spec that holds the setting and of the one that decides."""
for _row in _ROWS:
    _BY_PARTS.setdefault((_row.section, _row.decided_by), []).append(_row)


def unused(specs: Iterable[TrialSpec]) -> Iterator[Refused]:
    """Yield a refusal for each setting that some trials have, other than its default, and none reads."""
    found: dict[str, tuple[Row, object]] = {}
    read: set[str] = set()
    looked_at: dict[tuple[str, str | None, int, int], tuple[Any, Any]] = {}  # kept, so that ids stay theirs
    for spec in specs:
        for (section, decided_by), rows in _BY_PARTS.items():
            holder = _part(spec, section)
            decides = holder if decided_by is None else _part(spec, decided_by)
            same = (section, decided_by, id(holder), id(decides))
            if same in looked_at or not isinstance(holder, BaseModel):
                continue
            looked_at[same] = (holder, decides)
            for row in rows:
                if row.field not in type(holder).model_fields or _is_default(holder, row.field):
                    continue
                if row.is_read(decides):
                    read.add(row.path)
                else:
                    found.setdefault(row.path, (row, getattr(holder, row.field)))
    for path, (row, value) in found.items():
        if path not in read:
            shown = NO_VALUE if isinstance(value, BaseModel) else value
            yield Refused(path, shown, f"changes nothing here: it needs {row.needs}", "leave it out")


def _part(spec: TrialSpec, path: str) -> Any:
    """Return the spec at a path; None where this trial has none."""
    part: Any = spec
    for name in filter(None, path.split(".")):
        part = getattr(part, name, None)
    return part


def _is_default(holder: BaseModel, field: str) -> bool:
    default = type(holder).model_fields[field].default
    return bool(getattr(holder, field) == default)

"""Forecast of a sweep: which stages are stored, and what the others will take in memory and seconds.

Seconds are the work of a planned stage divided by the rate of stored ones that are like it (`sweep.rates`).
What is like nothing in the store is counted as unknown: no number stands in for it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from orchestrator.datasets import PARTS, Footprint
from orchestrator.datasets.shards import HELD_BYTES
from orchestrator.models.generator_outlines import Shapes
from orchestrator.stages.graph import Stage
from orchestrator.stages.workload import Reader, Sizes, Work
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.store.listing import published
from orchestrator.sweep.rates import Estimate, Rates, stage_work
from orchestrator.sweep.trial import Task

STAGE_READ, OTHERS_READ = 25, 600
"""Manifests that a forecast reads of each stage of the study, and of the store's other artifacts."""

PROCESS_BYTES = 700 * 2**20
"""Of a worker that has imported torch and holds nothing."""

WEIGHT_BYTES, STATE_BYTES = 4, 12
"""Of a parameter, and of its gradient and two moments in an optimiser."""


@dataclass(frozen=True)
class Known:
    """What a forecast takes for granted."""

    sets: Mapping[str, Footprint]
    """Data set -> what a worker holds of it."""

    sizes: Sizes
    """Numbers of their images."""

    shapes: Mapping[str, Shapes] = field(default_factory=dict)
    """Public weights that are staged -> their tensors."""


@dataclass(frozen=True)
class StageForecast:
    """What is expected of the stages of one name."""

    stage: str
    distinct: int
    stored: int
    missing: int  # of the distinct ones, to be run
    held_bytes: int  # of images, in each worker, at most
    mapped_bytes: int  # of image files, at most
    host_bytes: int  # of a worker's own memory in all, at most, about
    device_bytes: int  # of an accelerator, at most, about; 0 on a CPU
    cpu_seconds: float | None  # of the missing ones that are known, of an accelerator where it has one
    low: float | None  # an interval of 90 %, of the same
    high: float | None
    unknown: int  # of the missing ones, those that nothing in the store is like


@dataclass(frozen=True)
class Forecast:
    """What is expected of a sweep."""

    stages: Sequence[StageForecast]
    held_bytes: int
    mapped_bytes: int
    host_bytes: int
    device_bytes: int
    cpu_seconds: float | None  # of the stages that are known; None if none of them is
    low: float | None
    high: float | None
    device_hours: float  # of all workers, on the devices that the stages ask for
    unknown: Mapping[str, int]  # stage -> how many are in no number above
    missing: Mapping[str, Estimate | None] = field(default_factory=dict)  # key -> seconds, where known

    def plain(self) -> dict[str, object]:
        """Return the forecast as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class _Expected:
    """One planned stage."""

    held: int
    mapped: int
    host: int
    device: int
    estimate: Estimate | None
    workers: int


def forecast(
    tasks: Sequence[Task], store: Artifacts, known: Known, calibrated: Iterable[tuple[Artifact, Sizes]] = ()
) -> Forecast:
    """Return what the stages of the tasks need; nothing is run.

    `calibrated`: stages that were run to be measured, with the numbers of images of their sets.
    """
    stages = {stage.key: stage for task in tasks for stage in task.stages.values()}
    stored = set(store.keys())
    reader = Reader()
    manifests = published(store, _sampled(stored, stages))
    read = ((artifact, known.sizes) for _, artifact in manifests if artifact)
    rates = Rates([*read, *calibrated], known.shapes, reader)
    expect = _expecting(rates, known, reader)
    expected = {key: expect(stage) for key, stage in stages.items()}
    named: dict[str, list[str]] = {}
    for key, stage in stages.items():
        named.setdefault(stage.name, []).append(key)
    rows = [
        _row(name, [expected[key] for key in keys], [key in stored for key in keys])
        for name, keys in named.items()
    ]
    missing = {key: one for key, one in expected.items() if key not in stored}
    hours = sum(one.workers * one.estimate.seconds for one in missing.values() if one.estimate) / 3600
    return Forecast(
        stages=rows,
        held_bytes=max((row.held_bytes for row in rows), default=0),
        mapped_bytes=max((row.mapped_bytes for row in rows), default=0),
        host_bytes=max((row.host_bytes for row in rows), default=0),
        device_bytes=max((row.device_bytes for row in rows), default=0),
        cpu_seconds=_summed(row.cpu_seconds for row in rows if row.missing),
        low=_summed(row.low for row in rows if row.missing),
        high=_summed(row.high for row in rows if row.missing),
        device_hours=hours,
        unknown={row.stage: row.unknown for row in rows if row.unknown},
        missing={key: one.estimate for key, one in missing.items()},
    )


def _row(name: str, expected: Sequence[_Expected], is_stored: Sequence[bool]) -> StageForecast:
    missing = [one for one, is_there in zip(expected, is_stored, strict=True) if not is_there]
    times = [one.estimate for one in missing if one.estimate]
    has_time = bool(times) or not missing
    return StageForecast(
        stage=name,
        distinct=len(expected),
        stored=len(expected) - len(missing),
        missing=len(missing),
        held_bytes=max(one.held for one in expected),
        mapped_bytes=max(one.mapped for one in expected),
        host_bytes=max(one.host for one in expected),
        device_bytes=max(one.device for one in expected),
        cpu_seconds=sum(one.seconds for one in times) if has_time else None,
        low=sum(one.low for one in times) if has_time else None,
        high=sum(one.high for one in times) if has_time else None,
        unknown=len(missing) - len(times),
    )


def _summed(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _expecting(rates: Rates, known: Known, reader: Reader) -> Callable[[Stage], _Expected]:
    """Return what expects of a stage; stages that share their settings share it."""
    done: dict[tuple[object, ...], _Expected] = {}

    def expect(stage: Stage) -> _Expected:
        read = [one["name"] for one in (*stage.datasets.values(), *stage.weights.values())]
        parts = (*stage.specs.values(), stage.profile)  # the planner shares and keeps them
        same = (stage.name, *map(id, parts), *read)
        if same not in done:
            done[same] = _expected(stage, rates, known, reader)
        return done[same]

    return expect


def _expected(stage: Stage, rates: Rates, known: Known, reader: Reader) -> _Expected:
    work = stage_work(stage.name, stage.specs, stage.weights, known.shapes, reader)
    total = work.total(work.images(known.sizes), known.sizes)
    estimate = rates.estimate(stage.name, work, total, stage.profile)
    selected, held, mapped = _images(stage, known.sets)
    networks = _networks(work, stage.profile)
    on_device = stage.profile["device"] != "cpu"
    host = PROCESS_BYTES + held + (0 if on_device else networks)
    images = min(selected, 2 * HELD_BYTES) if work.trained else 0  # of a training and its validation
    device = networks + images if on_device else 0
    return _Expected(held, mapped, host, device, estimate, int(stage.profile["workers"]))


def _networks(work: Work, profile: Mapping[str, str | int]) -> int:
    """Return the bytes of networks, optimisers and what a step keeps of its images, for one worker."""
    number = 2 if profile["precision"] == "bfloat16" else 4
    has_own = profile["device"] != "cpu" and work.on_accelerator is not None
    activations = work.on_accelerator if has_own and work.on_accelerator else work.activations
    kept = activations * number / int(profile["workers"])
    return int(WEIGHT_BYTES * work.parameters + STATE_BYTES * work.trained + kept)


def _images(stage: Stage, sets: Mapping[str, Footprint]) -> tuple[int, int, int]:
    """Return the bytes of images that a stage selects, that a worker holds for it, and that it maps.

    It holds the sets that are not mapped, one in two roles once, and the images selected of each part of a
    split, unless they are so many that they are read a batch at a time.
    """
    selected = held = mapped = 0
    data = stage.specs.get("data")
    for about in (sets[name] for name in {one["name"] for one in stage.datasets.values()}):
        chosen = about.num_images * data["channels"] * data["image_size"] ** 2 if data else about.num_bytes
        selected += chosen
        held += min(chosen, len(PARTS) * HELD_BYTES) + (0 if about.is_mapped else about.num_bytes)
        mapped += about.num_bytes if about.is_mapped else 0
    return selected, held, mapped


def _sampled(stored: Collection[str], stages: Mapping[str, Stage]) -> list[str]:
    """Return the keys whose manifests a forecast reads: some of each stage, and some others."""
    own: dict[str, list[str]] = {}
    for key in sorted(stored):
        own.setdefault(stages[key].name if key in stages else "", []).append(key)
    most = {name: OTHERS_READ if name == "" else STAGE_READ for name in own}
    return [key for name, keys in own.items() for key in keys[:: -(-len(keys) // most[name])]]

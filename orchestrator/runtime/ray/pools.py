"""Pools of worker groups: a stage's resources, how many groups fit, which to start or end. No Ray."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.config.resources import Resources

STUCK_SECONDS = 30.0  # a group that waits longer for its resources may take those of idle groups
IDLE_SECONDS = 120.0  # a group without work for longer gives its resources back

LEAVING = ("ending", "retiring")  # it saves its stage and ends; it ends after its stage

Node = Mapping[str, float]  # resource name -> amount


@dataclass(frozen=True)
class Pool:
    """Worker groups of one shape; stages with the same resources share it, in any precision."""

    workers: int = 1
    threads: int = 1  # of each worker
    gpus_per_worker: float = 0.0

    @property
    def name(self) -> str:
        """Its name at the broker and in logs."""
        return f"{self.workers}x(threads={self.threads},gpus={self.gpus_per_worker:g})"

    @property
    def bundle(self) -> dict[str, float]:
        """What Ray reserves for each worker."""
        wanted = {"CPU": float(self.threads), "GPU": self.gpus_per_worker}
        return {name: amount for name, amount in wanted.items() if amount}

    @property
    def needs(self) -> str:
        """The resources of a group, in words."""
        per_worker = ", ".join(f"{amount:g} {name}" for name, amount in self.bundle.items())
        return f"{self.workers} x ({per_worker})"


def pool_of(resources: Resources, stage: str | None = None) -> Pool:
    """Return the pool of a stage, or of all stages that name no resources of their own."""
    needs = resources.of(stage)
    return Pool(needs.workers, needs.threads, needs.gpus_per_worker)


def slots(pool: Pool, nodes: Sequence[Node]) -> int:
    """Return how many groups of this pool an empty cluster takes."""
    free, count = [dict(node) for node in nodes], 0
    while _place(pool, free):
        count += 1
    return count


def shown(nodes: Sequence[Node]) -> str:
    """Return the resources of the nodes in words."""
    each = [
        "(" + ", ".join(f"{node[name]:g} {name}" for name in ("CPU", "GPU") if node.get(name)) + ")"
        for node in nodes
    ]
    counts = {words: each.count(words) for words in dict.fromkeys(each) if words != "()"}
    words = ", ".join(f"{count} x {one}" for one, count in counts.items())
    return f"the cluster has {words or 'no node with CPUs'}"


def _place(pool: Pool, free: list[dict[str, float]]) -> bool:
    """Take a group's resources out of `free`; False, and nothing taken, if it does not fit."""
    bundle = pool.bundle
    chosen: list[dict[str, float]] = []
    for _ in range(pool.workers):
        # The fullest node that takes it leaves large gaps for large workers.
        fitting = [node for node in free if all(node.get(k, 0.0) + 1e-9 >= v for k, v in bundle.items())]
        if not fitting:
            for node in chosen:
                _add(node, bundle, 1.0)
            return False
        node = min(fitting, key=lambda one: (one.get("GPU", 0.0), one.get("CPU", 0.0)))
        _add(node, bundle, -1.0)
        chosen.append(node)
    return True


def _add(node: dict[str, float], bundle: Mapping[str, float], sign: float) -> None:
    for name, amount in bundle.items():
        node[name] = node.get(name, 0.0) + sign * amount


@dataclass(frozen=True)
class Group:
    """A worker group as `decide` takes it."""

    name: str
    pool: Pool
    phase: str  # starting, idle, busy, or one of `LEAVING`
    seconds: float  # in this phase


@dataclass(frozen=True)
class Decision:
    """Which groups to start and to end now."""

    start: tuple[Pool, ...] = ()
    dismiss: tuple[str, ...] = ()  # groups that should end
    short: tuple[Pool, ...] = ()  # one entry for each group that is wanted and does not fit
    retire: tuple[str, ...] = ()  # groups that should end after the stage that they build


def decide(
    queued: Mapping[Pool, int], groups: Sequence[Group], nodes: Sequence[Node], cap: int | None
) -> Decision:
    """Return which groups to start and to end; `queued`: number of waiting stages, most urgent pool first.

    A pool gets a group for each waiting stage while all groups together fit the nodes and are no more than
    `cap`. Idle groups make room for those of other pools: no pool can starve another. Where `cap` was lowered
    as many groups as are over it end, those that build nothing first.
    """
    alive = list(groups)
    free = [dict(node) for node in nodes]
    for group in sorted(alive, key=lambda one: sorted(one.pool.bundle.items()), reverse=True):
        _place(group.pool, free)
    start: list[Pool] = []
    short: list[Pool] = []
    dismiss = [group.name for group in alive if group.phase == "idle" and group.seconds > IDLE_SECONDS]
    for pool, waiting in queued.items():
        own = [group for group in alive if group.pool == pool]
        coming = sum(group.phase in ("starting", "idle") for group in own)
        for _ in range(waiting - coming):
            is_capped = cap is not None and len(alive) + len(start) + len(short) >= cap
            if not is_capped and _place(pool, free):
                start.append(pool)
            elif spare := _spare(pool, queued, alive, dismiss):
                dismiss.append(spare)
            elif not is_capped:
                short.append(pool)
        is_stuck = not any(group.phase in ("idle", "busy") for group in own) and any(
            group.phase == "starting" and group.seconds > STUCK_SECONDS for group in own
        )
        if waiting and is_stuck and (spare := _spare(pool, queued, alive, dismiss)):
            dismiss.append(spare)
    return Decision(tuple(start), tuple(dict.fromkeys(dismiss)), tuple(short), _over(alive, dismiss, cap))


def _over(groups: Sequence[Group], dismissed: Sequence[str], cap: int | None) -> tuple[str, ...]:
    """Return the groups beyond `cap`: idle ones first, then those that start, then the youngest builders."""
    staying = [group for group in groups if group.phase not in LEAVING and group.name not in dismissed]
    most = len(staying) if cap is None else cap
    staying.sort(key=lambda one: (("busy", "starting", "idle").index(one.phase), -one.seconds))
    return tuple(group.name for group in staying[most:])


def _spare(
    pool: Pool, queued: Mapping[Pool, int], groups: Sequence[Group], dismissed: Sequence[str]
) -> str | None:
    """Return the name of an idle group of another pool."""
    spare = (
        group.name
        for group in groups
        if group.phase == "idle"
        and group.pool != pool
        and not queued.get(group.pool)
        and group.name not in dismissed
    )
    return next(spare, None)

"""What the stages of a sweep cost, and what it saved that trials share them. Read from their manifests."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.store.artifacts import Artifacts
from orchestrator.store.parallel import parallel_map
from orchestrator.sweep.records import TrialRecord

WALL = "cost/wall_seconds"


@dataclass
class Spent:
    """One kind of stage."""

    stage: str
    distinct: int = 0
    uses: int = 0  # by trials
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    alone_cpu_seconds: float = 0.0  # if every trial had computed its own
    alone_wall_seconds: float = 0.0

    def seconds(self, metric: str) -> tuple[float, float]:
        """Return what it cost, and what without sharing, in the unit of a metric of costs."""
        if metric == WALL:
            return self.wall_seconds, self.alone_wall_seconds
        return self.cpu_seconds, self.alone_cpu_seconds


def spent_by_stage(records: Sequence[TrialRecord], store: Artifacts) -> list[Spent]:
    """Return the costs of every kind of stage that is stored, in the order in which trials have them; failed
    and pruned trials have some too."""
    used: dict[str, list[str]] = {}
    for record in sorted(records, key=lambda one: one.index):
        for label, key in record.stage_keys.items():
            used.setdefault(label.partition(".")[0], []).append(key)
    keys = list(dict.fromkeys(key for own in used.values() for key in own))
    artifacts = dict(zip(keys, parallel_map(store.find, keys), strict=True))
    costs = {key: artifact.cost for key, artifact in artifacts.items() if artifact is not None}
    found = []
    for stage, own in used.items():
        stored = [key for key in own if key in costs]
        if stored:
            distinct = dict.fromkeys(stored)
            sums = [
                sum(costs[key].get(name, 0.0) for key in part)
                for part in (distinct, stored)
                for name in ("cpu_seconds", "wall_seconds")
            ]
            found.append(Spent(stage, len(distinct), len(stored), *sums))
    return found

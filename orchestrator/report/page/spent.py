"""What the stages of a sweep cost, and what it saved that trials share them. Read from their manifests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.store.artifacts import Artifact, Artifacts
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


def artifacts_of(records: Sequence[TrialRecord], store: Artifacts) -> dict[str, Artifact]:
    """Return key -> the stored stages of trials; failed and pruned trials have some too."""
    keys = list(dict.fromkeys(key for record in records for key in record.stage_keys.values()))
    return {key: one for key, one in zip(keys, parallel_map(store.find, keys), strict=True) if one}


def spent_by_stage(records: Sequence[TrialRecord], artifacts: Mapping[str, Artifact]) -> list[Spent]:
    """Return the costs of every kind of stage that is stored, in the order in which trials have them."""
    used: dict[str, list[str]] = {}
    for record in sorted(records, key=lambda one: one.index):
        for label, key in record.stage_keys.items():
            used.setdefault(label.partition(".")[0], []).append(key)
    found = []
    for stage, own in used.items():
        stored = [key for key in own if key in artifacts]
        if stored:
            distinct = dict.fromkeys(stored)
            sums = [
                sum(artifacts[key].cost.get(name, 0.0) for key in part)
                for part in (distinct, stored)
                for name in ("cpu_seconds", "wall_seconds")
            ]
            found.append(Spent(stage, len(distinct), len(stored), *sums))
    return found

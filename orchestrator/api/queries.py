"""Queries that a study needs of the services that it attacks: images that no stored answer is for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.datasets import Location, services
from orchestrator.datasets.services import StagedService
from orchestrator.models.services import sent_images
from orchestrator.models.services.asker import over_budget
from orchestrator.stages.graph import Stage
from orchestrator.stages.runner import asked_images
from orchestrator.store.answers import Answers
from orchestrator.store.artifacts import Artifacts
from orchestrator.sweep.trial import Task

HELD = 512  # images in memory at a time


@dataclass(frozen=True)
class Needed:
    """What a study still asks one service for."""

    service: StagedService
    images: int  # without an answer
    requests: int  # for these, if none fails
    left: int  # of the budget, before them
    is_least: bool  # whether searches ask for more, which depends on what is answered

    @property
    def words(self) -> str:
        """The line of a plan."""
        staged, per = self.service, self.service.service.images_per_request
        more = "; searches ask for more as they go" if self.is_least else ""
        return (
            f"service {staged.name}: {self.requests} requests for {self.images} images without an answer, at "
            f"most {per} in each; {self.left} of asking.budget={staged.asking.budget} are left{more}"
        )

    def check(self) -> None:
        """Raise `Refused` if the budget does not suffice."""
        if self.requests > self.left:
            name = f"{services.FIELD}={self.service.name}"
            raise over_budget(name, self.requests, self.images, self.left, self.service.asking.budget)


def needed_queries(tasks: Sequence[Task], store: Artifacts, location: Location) -> Iterator[Needed]:
    """Yield what trials ask of each service beyond its stored answers; nothing is asked."""
    stages = {stage.key: stage for task in tasks for stage in task.stages.values()}
    stored = set(store.keys())
    missing = [stage for key, stage in stages.items() if key not in stored and _service(stage)]
    for name in dict.fromkeys(_service(stage) for stage in missing):
        assert name is not None
        own = [stage for stage in missing if _service(stage) == name]
        yield _of_service(services.describe(name, location), own, store, location)


def _of_service(
    staged: StagedService, stages: Sequence[Stage], store: Artifacts, location: Location
) -> Needed:
    service = staged.service
    answers = Answers(store.blobs, service.url, staged.digest)
    answers.refresh()
    known, num_images, num_requests = set(answers.rows), 0, 0
    for stage in stages:
        for images in asked_images(stage, location):
            new = {one.digest for part in images.split(HELD) for one in sent_images(part, service)} - known
            known |= new
            num_images += len(new)
            num_requests += -(-len(new) // service.images_per_request)
    left = max(0, staged.asking.budget - answers.num_sent)
    is_least = any(stage.name == "optimization" for stage in stages)
    return Needed(staged, num_images, num_requests, left, is_least)


def _service(stage: Stage) -> str | None:
    """Return the service that F is of a stage that may ask it."""
    target = stage.specs.get("target") or {}
    name: str | None = target.get("service")
    return name

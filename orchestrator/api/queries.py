"""Queries that a study needs of the services that it attacks: images that no stored answer is for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.config.base import digest
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
    folder: str  # of the requests to its address, in the store
    images: int  # without an answer
    requests: int  # for these, if none fails
    left: int  # of the budget, before them
    at_address: tuple[int, int]  # images and requests of all services at its address
    is_least: bool  # whether searches ask for more, which depends on what is answered

    @property
    def words(self) -> str:
        """The line of a plan."""
        staged, per = self.service, self.service.service.images_per_request
        more = "; searches ask for more as they go" if self.is_least else ""
        return (
            f"service {staged.name}: {self.requests} requests for {self.images} images without an answer, at "
            f"most {per} in each; {self.left} of asking.budget={staged.asking.budget} are left{more}; "
            f"stored in {self.folder}"
        )

    def check(self) -> None:
        """Raise `Refused` if the budget does not suffice for all that is asked at the address."""
        images, requests = self.at_address
        if self.requests and requests > self.left:
            name = f"{services.FIELD}={self.service.name}"
            others = "" if requests == self.requests else ", with other services at its address,"
            raise over_budget(f"{name}{others}", requests, images, self.left, self.service.asking.budget)


@dataclass
class _Address:
    """What is known of an address, and what services there ask."""

    images: int = 0
    requests: int = 0
    known: dict[str, set[str]] = field(default_factory=dict)  # digest of what is asked -> digests of images


def needed_queries(tasks: Sequence[Task], store: Artifacts, location: Location) -> Iterator[Needed]:
    """Yield what trials ask of each service beyond its stored answers; nothing is asked."""
    stages = {stage.key: stage for task in tasks for stage in task.stages.values()}
    stored = set(store.keys())
    missing = [stage for key, stage in stages.items() if key not in stored and _service(stage)]
    addresses: dict[str, _Address] = {}
    needed = []
    for name in dict.fromkeys(_service(stage) for stage in missing):
        assert name is not None
        own = [stage for stage in missing if _service(stage) == name]
        needed.append(_of_service(services.describe(name, location), own, store, location, addresses))
    for one in needed:
        address = addresses[one.service.service.address]
        yield replace(one, at_address=(address.images, address.requests))


def _of_service(
    staged: StagedService,
    stages: Sequence[Stage],
    store: Artifacts,
    location: Location,
    addresses: dict[str, _Address],
) -> Needed:
    """Return what a service is asked beyond what others before it ask, and add it to its address."""
    service, asked = staged.service, digest(staged.service.asked)
    answers = Answers(store.blobs, service.address, asked)
    answers.refresh()
    address = addresses.setdefault(service.address, _Address())
    known, num_images, num_requests = address.known.setdefault(asked, set(answers.stored)), 0, 0
    for stage in stages:
        for images in asked_images(stage, location):
            new = {one.digest for part in images.split(HELD) for one in sent_images(part, service)} - known
            known |= new
            num_images += len(new)
            num_requests += -(-len(new) // service.images_per_request)
    left = max(0, staged.asking.budget - answers.num_sent)
    is_least = any(stage.name == "optimization" for stage in stages)
    address.images, address.requests = address.images + num_images, address.requests + num_requests
    own = (num_images, num_requests)
    return Needed(staged, answers.folder, *own, left, at_address=own, is_least=is_least)


def _service(stage: Stage) -> str | None:
    """Return the service that F is of a stage that may ask it."""
    target = stage.specs.get("target") or {}
    name: str | None = target.get("service")
    return name

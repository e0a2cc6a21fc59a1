"""Search: an image for each prediction or class, among pixels by the target's gradient (AMI, section II-B) or
in the latent space of a prior (stage `optimization`)."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from orchestrator.attacks import search
from orchestrator.attacks.latent import GenerativePrior
from orchestrator.attacks.pixel_search import SearchResult, joined
from orchestrator.attacks.row_search import DrawnSearch, Search, State, joined_states, split_state
from orchestrator.attacks.sharded_search import search_all
from orchestrator.config import Attack, AttackSpec, Auxiliary, Data, Evaluation, Prior, Release, Target
from orchestrator.datasets.selection import check_prior_images
from orchestrator.stages.images import attacked_scores, auxiliary_images, inferred_classes, mean_image
from orchestrator.stages.io import Inputs, Outputs, npy, read_npy
from orchestrator.stages.networks import MEAN_FEATURES, black_box, stored_classifier, stored_prior
from orchestrator.stages.target_model import stored_target
from orchestrator.threat import BlackBox, FeatureBox, WhiteBox
from orchestrator.training.pairs import as_stored
from orchestrator.training.seeds import derive_seed
from orchestrator.training.world import World


def run(  # noqa: PLR0913 - one for each sub-spec that some search depends on
    inputs: Inputs,
    data: Data,
    target: Target,
    attack: Attack,
    release: Release,
    evaluation: Evaluation,
    auxiliary: Auxiliary | None = None,
    prior: Prior | None = None,
) -> Outputs:
    """Search an image for each released prediction of private images, or the candidates of each class.

    Most adversaries that search have no auxiliary set; of one that has, the mean image is the first one.
    Raise `Refused` if the prior was trained on private images.
    """
    if prior:
        _check_prior(inputs, data, target, prior)
    box = _boxed(inputs, data, target, attack, release)
    searched = _learned(inputs, data, target, prior, attack) if prior else None
    shape = (data.channels, data.image_size, data.image_size)
    parts, m = attacked_scores(inputs, target, release, evaluation)
    if evaluation.task == "class-inference":
        _, numbers = inferred_classes(target, evaluation)
    else:
        numbers = torch.zeros(sum(map(len, parts.values())), dtype=torch.int64)

    images = auxiliary_images(inputs, data, target, auxiliary) if auxiliary else None
    mean = None if images is None else mean_image(images)

    def search_as(attack: AttackSpec) -> Search:
        return search(attack, box, m=m, shape=shape, mean=mean, prior=searched)

    scores = torch.cat(list(parts.values()))
    result = _found(attack, search_as, scores, numbers, inputs.world)
    sizes = [len(part) for part in parts.values()]
    searches = 1 if attack.draws_candidates else len(numbers.unique())
    found = result.images.split(sizes)
    files = {f"reconstructions_{part}.npy": npy(made) for part, made in zip(parts, found, strict=True)}
    metrics = {
        "optimization/steps": result.steps.double().mean().item(),
        "optimization/cost": result.costs.double().mean().item(),
        "attack/queries": float(result.queries.sum()) + attack.shared_queries * searches,
    }
    return Outputs(files, metrics, len(scores))


def _found(
    attack: AttackSpec,
    search_as: Callable[[AttackSpec], Search],
    scores: Tensor,
    numbers: Tensor,
    world: World,
) -> SearchResult:
    """Return an image for each row of scores (n, k), uint8, the candidates by `numbers` (n,), ascending."""
    if attack.draws_candidates:
        drawn = ByDraw(cast(DrawnSearch, search_as(attack)), len(numbers.unique()))
        found = search_all(drawn, scores[numbers == 0], world, drawn.chunk)
        return SearchResult(*(tensor.transpose(0, 1).flatten(0, 1) for tensor in vars(found).values()))
    rows = torch.cat([scores, numbers[:, None].to(scores.dtype)], dim=1)
    return search_all(ByCandidate(attack, search_as), rows, world)


def _check_prior(inputs: Inputs, data: Data, target: Target, prior: Prior) -> None:
    """Raise `Refused` if the prior has seen private images; its own stage may not know which these are."""
    if prior.weights:
        return  # its images are not here
    other = inputs.datasets(prior.dataset) if prior.dataset else None
    check_prior_images(inputs.datasets(data.dataset), other, data, target.classes)


def _boxed(
    inputs: Inputs, data: Data, target: Target, attack: AttackSpec, release: Release
) -> WhiteBox | BlackBox:
    """Return the target as the attack has access to it."""
    network = stored_target(inputs, data, target)
    if attack.access == "features":
        return FeatureBox(network)
    return WhiteBox(network) if attack.has_weights else black_box(inputs, network, release)


def _learned(inputs: Inputs, data: Data, target: Target, prior: Prior, attack: AttackSpec) -> GenerativePrior:
    """Return what the adversary has learned from public images."""
    students = [
        stored_classifier(inputs, f"students.{name}", student.model, target.classes, data)
        for name, student in attack.students.items()
    ]
    features = read_npy(inputs, "answers", MEAN_FEATURES) if attack.reads_features else None
    return replace(stored_prior(inputs, data, target, prior), students=students, features=features)


class ByCandidate:
    """A search of rows (n, k + 1): scores, then the candidate's number, ascending over rows. Each candidate
    has a seed of its own, the first one the attack's."""

    def __init__(self, attack: AttackSpec, search_as: Callable[[AttackSpec], Search]) -> None:
        self._attack, self._search_as = attack, search_as
        self._searches: dict[int, Search] = {}  # of the candidates at hand: each may have a pool

    def advance(self, rows: Tensor, state: State) -> State:
        """Search a segment further with rows (n, k + 1)."""
        return joined_states([search.advance(part, one) for search, part, one in self._parts(rows, state)])

    def result(self, rows: Tensor, state: State) -> SearchResult:
        """Return the images of rows (n, k + 1), as they are stored."""
        return _as_stored(
            joined([search.result(part, one) for search, part, one in self._parts(rows, state)])
        )

    def _parts(self, rows: Tensor, state: State) -> Iterator[tuple[Search, Tensor, State]]:
        numbers, counts = rows[:, -1].unique_consecutive(return_counts=True)
        sizes = counts.tolist()
        states = split_state(state, sizes)
        at_hand = [int(number) for number in numbers.tolist()]
        kept = self._searches
        self._searches = {
            number: kept[number] if number in kept else self._search_as(_for_candidate(self._attack, number))
            for number in at_hand
        }
        for number, part, one in zip(at_hand, rows[:, :-1].split(sizes), states, strict=True):
            yield self._searches[number], part, one


class ByDraw:
    """A search of rows (n, k), of which each has as many images as there are candidates, (n, number, ...)."""

    def __init__(self, search: DrawnSearch, number: int) -> None:
        self._search, self._number = search, number

    @property
    def chunk(self) -> int:
        """Return how many rows go together."""
        return self._search.chunk

    def advance(self, rows: Tensor, state: State) -> State:
        """Search a segment further with rows (n, k)."""
        return self._search.advance(rows, state)

    def result(self, rows: Tensor, state: State) -> SearchResult:
        """Return the images of rows (n, k), as they are stored, and what they took, with a dimension of draws
        after the first."""
        draws = [vars(_as_stored(one)).values() for one in self._search.draws(rows, state, self._number)]
        return SearchResult(*(torch.stack(column, dim=1) for column in zip(*draws, strict=True)))


def _as_stored(found: SearchResult) -> SearchResult:
    """Return what was found with images as uint8: a quarter of the memory that ranks gather and save."""
    return replace(found, images=as_stored(found.images))


def _for_candidate(attack: AttackSpec, number: int) -> AttackSpec:
    """Return the attack with the seed of a candidate, counted from 0."""
    return attack.but(seed=derive_seed("candidate", attack.seed, number) % 2**31) if number else attack

"""VMI: steps by hand, draws, its state, and what its settings do."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from orchestrator import config
from orchestrator.attacks import vmi
from orchestrator.attacks.latent import normal_rows
from orchestrator.attacks.row_search import State, search_to_the_end
from tests.attacks.priors import CLASSES, SIZE, Generator, Styled, small_prior, small_target

SHORT = {"samples": 8, "couplings": 2, "width": 4, "levels": 2}


def attack(**settings: Any) -> config.VmiAttack:
    return config.VmiAttack.model_validate({"name": "vmi", **SHORT, **settings})


def begun(generator: type[Generator] = Generator, **settings: Any) -> vmi.VariationalSearch:
    return vmi.search(attack(**settings), small_target(), small_prior(generator))


def rows(*classes: int) -> Tensor:
    return torch.eye(CLASSES)[list(classes)]


@pytest.mark.parametrize("generator", [Generator, Styled])
def test_steps_by_hand(generator: type[Generator]) -> None:
    """Torch's SGD with momentum on the mean cross-entropy and the closed divergence of each style input."""
    settings = attack(family="gaussian", steps=6, learning_rate=0.05, divergence_weight=0.3, seed=2)
    target, prior, label = small_target(), small_prior(generator), torch.tensor([3])
    inputs = prior.generator.num_styles
    mean, log_deviation = (torch.zeros(inputs, 1, SIZE, requires_grad=True) for _ in range(2))
    sgd = torch.optim.SGD([mean, log_deviation], lr=0.05, momentum=0.9)
    for step in range(1, 7):
        noise = normal_rows(label, (1, 8, SIZE), "vmi step", 2, step, "shared")[0]  # the same for all inputs
        latents = mean + log_deviation.exp() * noise
        styles = torch.stack([prior.generator.styles(one)[:, 0] for one in latents], dim=1)
        logits = target.logits(prior.generator.synthesize(styles))
        apart = 0.5 * (mean.square() + (2 * log_deviation).exp() - 1 - 2 * log_deviation).sum((1, 2)).mean()
        sgd.zero_grad()
        (functional.cross_entropy(logits, label.expand(8)) + 0.3 * apart).backward()
        sgd.step()
    state = vmi.search(settings, target, prior).advance(rows(3), {})
    expected = torch.cat([mean, log_deviation], dim=2)[:, 0].detach()
    torch.testing.assert_close(state["parameters"][0], expected, atol=1e-5, rtol=1e-4)
    assert expected.abs().max() > 0.01
    if inputs > 1:
        assert not torch.allclose(expected[0], expected[1])


@pytest.mark.parametrize("family", ["flow", "gaussian"])
def test_it_raises_the_scores_of_draws(family: str) -> None:
    target = small_target()
    scores = []
    for steps in (0, 60):
        search = begun(family=family, steps=steps, learning_rate=0.1, normalisation="identity")
        state: State = {}
        while not state or not state["finished"].all():
            state = search.advance(rows(*range(CLASSES)), state)
        draws = [search.draw(rows(*range(CLASSES)), state, number).images for number in range(16)]
        scores.append(torch.stack([target.logits(one).softmax(1).diagonal() for one in draws]).mean(0))
    assert (scores[1] > scores[0]).all()
    assert scores[1].mean() > 1.5 * scores[0].mean()


def test_without_steps_draws_are_images_of_normal_latents() -> None:
    search = begun(family="gaussian", steps=0)
    state = search.advance(rows(2, 4), {})
    for number in range(2):
        noise = normal_rows(torch.tensor([2, 4]), (1, 1, SIZE), "vmi draw", 0, number, "shared")
        found = search.draw(rows(2, 4), state, number)
        torch.testing.assert_close(found.images, small_prior().generator(noise.flatten(0, 2)))
        assert found.queries.tolist() == [1.0, 1.0]
        wanted = torch.tensor([2, 4])
        costs = functional.cross_entropy(small_target().logits(found.images), wanted, reduction="none")
        torch.testing.assert_close(found.costs, costs)


def test_queries_of_the_search_count_with_the_first_draw() -> None:
    search = begun(steps=3)
    state = search.advance(rows(2), {})
    assert [search.draw(rows(2), state, number).queries.item() for number in range(3)] == [25.0, 1.0, 1.0]


def test_a_stored_state_draws_the_same_in_another_process() -> None:
    """All that a flow is, with its permutations, is in the state."""
    state = begun(steps=4).advance(rows(1, 5), {})
    other = begun(steps=4)
    for number in (0, 3):
        one, two = (search.draw(rows(1, 5), state, number).images for search in (begun(steps=4), other))
        assert torch.equal(one, two)
    changed = {**state, "fixed": state["fixed"].flip(2)}
    assert not torch.allclose(other.draw(rows(1, 5), changed, 0).images, one)


def test_inputs_share_the_noise_of_the_last_level_alone() -> None:
    search = begun(Styled, steps=1)
    noise = search._noise(torch.tensor([2, 4]), "step", 1).unflatten(0, (2, 3))  # (n, L, N, d)
    shared = noise == noise[:, :1]
    assert shared[..., :3].all()  # of levels of 6 and 3 numbers
    assert not shared[:, 1:, :, 3:].any()
    assert not (noise[0] == noise[1]).any()


def test_first_parameters_and_noise_go_by_the_seed_and_the_class() -> None:
    classes, made = torch.tensor([2, 4]), []
    for seed in (0, 1):
        search = begun(seed=seed)
        state = search._begun(classes)
        made.append([state["parameters"][:, 0], state["fixed"][:, 0].float()])
        made[-1] += [search._other_noise(classes, number) for number in (1, 2)]
    for one, other in zip(*made, strict=True):
        assert not torch.equal(one, other)
        assert not torch.equal(one[0], one[1])
    assert not torch.equal(made[0][2], made[0][3])


def test_as_many_rows_go_together_as_have_half_a_gigabyte_of_state() -> None:
    assert begun(family="gaussian").chunk == 2**27 // (2 * 2 * SIZE)
    numbers = begun(Styled).advance(rows(0), {})["parameters"].numel()
    assert begun(Styled).chunk == 2**27 // (2 * numbers)


def test_a_gaussian_has_none_of_a_flows_settings() -> None:
    one = attack(family="gaussian", levels=1, couplings=2, width=3, normalisation="identity")
    assert one.canonical() == config.VmiAttack(name="vmi", family="gaussian", samples=8)
    assert attack().canonical() == attack()


def test_the_weight_of_the_divergence_keeps_a_flow_near_normal() -> None:
    noise = torch.randn(1, 500, SIZE, generator=torch.Generator().manual_seed(0))
    found = []
    for steps, weight in ((0, 0.0), (40, 1.0), (40, 0.0)):
        search = begun(steps=steps, learning_rate=0.001, divergence_weight=weight, samples=64)
        state = search_state(search)
        found.append(search._family.divergence(state["parameters"][0], state["fixed"][0], noise).item())
    assert found[0] == pytest.approx(0.0669, abs=1e-3)
    assert found[1] < 0.03
    assert found[2] > found[0]


def search_state(search: vmi.VariationalSearch) -> State:
    """Return the state after all steps of class 2."""
    state: State = {}
    while not state or not state["finished"].all():
        state = search.advance(rows(2), state)
    return state


def test_the_result_is_the_first_draw() -> None:
    search = begun(steps=2)
    state = search_state(search)
    found = search_to_the_end(begun(steps=2), rows(2))
    assert torch.equal(found.images, search.draw(rows(2), state, 0).images)

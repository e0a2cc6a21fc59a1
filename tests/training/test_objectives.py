"""Objectives and steps: a generator and a critic, each with an optimiser, through all of the loop."""

import contextlib
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from orchestrator.config import Recipe
from orchestrator.training import loop
from orchestrator.training.checkpoint import load_state
from orchestrator.training.loop import Fitted, Objective, fit
from orchestrator.training.optimizers import Descent, Step, joint_state, load_joint_state
from orchestrator.training.pairs import Pairs
from orchestrator.training.seeds import seeded
from orchestrator.training.world import Cancelled, Diverged, Preempted, World
from tests.ranks import run_two
from tests.training.test_loop import Memory, Shared, same, stopping_after

RECIPE = Recipe(epochs=3, batch_size=8, learning_rate=0.02, validation_fraction=0.2)
CRITIC = RECIPE.but(optimizer="sgd", learning_rate=0.1, milestones=(1,))
CRITIC_STEPS = 3
CENTRE = 2.0  # of the numbers that the generator has to imitate


class Rivals(nn.Module):
    """A generator of numbers (N, 1) from noise, and the critic of them."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))
        self.critic = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.1), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        """Generate as many numbers as there are inputs."""
        return self.generator(torch.randn(len(inputs), 2))


class RivalStep:
    """Several steps of the critic on each batch, with noise of their own, then one of the generator."""

    def __init__(self, model: Rivals, objective: Objective, recipe: Recipe, world: World) -> None:
        self.model, self.world = model, world
        self.generator, self.critic = (
            Descent(model.generator.parameters(), recipe),
            Descent(model.critic.parameters(), CRITIC),
        )
        self.descents = {"generator": self.generator, "critic": self.critic}

    def begin(self, epoch: int, epochs: int) -> None:
        """Set each learning rate by its own schedule."""
        for descent in self.descents.values():
            descent.begin(epoch)

    def train(self, inputs: Tensor, outputs: Tensor) -> dict[str, Tensor]:
        """Return the generator's loss and the critic's last one."""
        for _ in range(CRITIC_STEPS):
            with self.world.autocast():
                real, fake = self.model.critic(outputs), self.model.critic(self.model(inputs).detach())
                critic = (fake.mean() - real.mean() + 0.1 * (real.square() + fake.square()).mean()).float()
            self.critic.descend(critic, self.world)
        with self.world.autocast():
            loss = -self.model.critic(self.model(inputs)).float().mean()
        self.generator.descend(loss, self.world)
        return {"loss": loss.detach(), "critic": critic.detach()}

    def state(self) -> dict[str, Tensor]:
        """Return the state of both optimisers."""
        return joint_state(self.descents)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore both optimisers."""
        load_joint_state(self.descents, tensors)


def rivalry(step: Callable[[Any, Objective, Recipe, World], Step] = RivalStep) -> Objective:
    """Return the objective of both: the best epoch has the closest mean."""

    def loss(model: nn.Module, inputs: Tensor, outputs: Tensor) -> Tensor:
        raise AssertionError("the step has losses of its own")

    def sums(model: nn.Module, inputs: Tensor, outputs: Tensor) -> dict[str, float]:
        return {"distance": (model(inputs).mean() - outputs.mean()).abs().item() * len(inputs)}

    return Objective(loss, sums, lambda means: (means["distance"],), step=step)


def pairs(number: int = 40) -> Pairs:
    """Return numbers around the centre, which the step takes as outputs."""
    numbers = CENTRE + 0.1 * torch.randn(number, 1, generator=torch.Generator().manual_seed(2))
    return Pairs(numbers, numbers)


def rivals() -> Any:
    """Return both networks untrained."""
    return seeded(Rivals, 3)


def trained(
    world: World, objective: Objective | None = None, recipe: Recipe = RECIPE
) -> tuple[dict[str, Tensor], Fitted]:
    """Fit both networks and return their weights and the fit."""
    torch.set_num_threads(1)
    model = rivals()
    fitted = fit(model, pairs(), objective or rivalry(), recipe, 7, world)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, fitted


def preempting_after(batches: int) -> Callable[[], bool]:
    """Preempt once that many batches have begun."""
    polls = itertools.count()
    return lambda: next(polls) >= batches


@pytest.fixture(scope="module")
def whole() -> tuple[dict[str, Tensor], Fitted]:
    """Return an uninterrupted training of both networks."""
    return trained(World())


def test_both_networks_learn_and_every_loss_has_a_curve(whole: tuple[dict[str, Tensor], Fitted]) -> None:
    weights, fitted = whole
    before = rivals().state_dict()
    assert not any(torch.equal(before[name], weights[name]) for name in before if "weight" in name)
    assert set(fitted.curves) == {"train_loss", "train_critic", "validation_distance"}
    assert all(len(values) == 3 for values in fitted.curves.values())
    long = trained(World(), recipe=RECIPE.but(epochs=30))[1]
    assert long.best["validation_distance"] < 0.2 * fitted.curves["validation_distance"][0]


def test_each_network_has_its_own_schedule_and_number_of_steps() -> None:
    rates: dict[str, list[float]] = {"generator": [], "critic": []}

    def noting(*arguments: Any) -> Step:
        step = RivalStep(*arguments)
        for name, descent in step.descents.items():

            def note(optimizer: Any, *_: Any, name: str = name) -> None:
                rates[name].append(optimizer.param_groups[0]["lr"])

            descent.optimizer.register_step_pre_hook(note)
        return step

    trained(World(), rivalry(noting), RECIPE.but(milestones=(2,)))
    assert rates["generator"] == pytest.approx([0.02] * 8 + [0.002] * 4)  # 32 numbers in batches of 8
    assert rates["critic"] == pytest.approx([0.1] * 12 + [0.01] * 24)


def test_a_step_of_one_network_leaves_no_gradient_on_the_other() -> None:
    model = rivals()
    step = RivalStep(model, rivalry(), RECIPE, World())
    step.begin(1, 1)
    step.critic.descend(model.critic(model(pairs().inputs)).mean(), World())
    assert all(parameter.grad is None for parameter in model.generator.parameters())
    assert all(parameter.grad is not None for parameter in model.critic.parameters())


@pytest.mark.parametrize("batches", [0, 1, 3, 4, 6])  # of four in each epoch
def test_preempted_midway_it_ends_with_the_same_bytes(
    batches: int, whole: tuple[dict[str, Tensor], Fitted]
) -> None:
    memory = Memory()
    number, done = divmod(batches, 4)
    with pytest.raises(Preempted, match=f"preempted in epoch {number + 1} of 3, {done} batches done"):
        trained(World(checkpoint=memory, is_preempted=preempting_after(batches)))
    weights, fitted = trained(World(checkpoint=memory))
    assert same(weights, whole[0])
    assert fitted == whole[1]


def test_cancelled_again_and_again_it_ends_with_the_same_bytes(
    whole: tuple[dict[str, Tensor], Fitted],
) -> None:
    memory = Memory()
    for epoch in (1, 2):
        with pytest.raises(Cancelled, match=f"stopped after epoch {epoch} of 3"):
            trained(World(checkpoint=memory, checkpoint_seconds=0.0, report=stopping_after(epoch)))
    weights, fitted = trained(World(checkpoint=memory))
    assert same(weights, whole[0])
    assert fitted == whole[1]


def test_bfloat16_reaches_the_step_and_resumes_too(whole: tuple[dict[str, Tensor], Fitted]) -> None:
    undisturbed, fitted = trained(World(precision="bfloat16"))
    assert fitted.curves["train_critic"] != whole[1].curves["train_critic"]
    memory = Memory()
    with pytest.raises(Preempted):
        trained(World(precision="bfloat16", checkpoint=memory, is_preempted=preempting_after(5)))
    resumed, rest = trained(World(precision="bfloat16", checkpoint=memory))
    assert same(resumed, undisturbed)
    assert rest == fitted


def test_a_loss_that_is_no_number_is_named_with_its_batch() -> None:
    class Broken(RivalStep):
        batches = 0

        def train(self, inputs: Tensor, outputs: Tensor) -> dict[str, Tensor]:
            self.batches += 1
            losses = super().train(inputs, outputs)
            return losses | ({"critic": torch.tensor(torch.nan)} if self.batches == 6 else {})

    message = "the training critic is nan in epoch 2 of 3, batch 2 of 4; lower recipe.learning_rate"
    with pytest.raises(Diverged, match=message):
        trained(World(), rivalry(Broken))


def test_what_is_not_finite_is_never_saved() -> None:
    class Broken(RivalStep):
        def train(self, inputs: Tensor, outputs: Tensor) -> dict[str, Tensor]:
            return super().train(inputs, outputs) | {"critic": torch.tensor(torch.inf)}

    memory = Memory()
    with pytest.raises(Preempted):
        trained(World(checkpoint=memory, is_preempted=preempting_after(2)), rivalry(Broken))
    assert memory.saves == 0


def test_a_checkpoint_names_each_optimiser_and_each_loss() -> None:
    memory = Memory()
    with pytest.raises(Preempted):
        trained(World(checkpoint=memory, is_preempted=preempting_after(2)))
    saved = load_state(memory)
    assert saved is not None
    names = set(saved[0])
    assert {"midway.total", "midway.total.critic", "generator.cpu"} <= names
    assert {"optimizer.generator.0.exp_avg", "optimizer.critic.0.momentum_buffer"} <= names


def as_rank(rank: int, size: int, folder: str) -> None:
    """Train as one of several processes, uninterrupted and interrupted; leave the weights and the losses."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size
    )
    losses: list[float] = []

    def go(checkpoint: Shared | None, stop: int = 99, preempt: int = 99) -> dict[str, Tensor]:
        def report(metrics: Mapping[str, float]) -> bool:
            losses.append(metrics["train_critic"])
            return metrics["epoch"] < stop

        model = rivals()
        world = World(rank, size, checkpoint=checkpoint, checkpoint_seconds=0.0, report=report)
        world.is_preempted = preempting_after(preempt)
        order = itertools.count()  # each epoch is better than the last, so that rank 0 ends like the rest
        plain = rivalry()
        objective = Objective(plain.loss, plain.sums, lambda means: (next(order),), step=RivalStep)
        with contextlib.suppress(Cancelled, Preempted):
            fit(model, pairs(), objective, RECIPE, 7, world)
        return {name: tensor.detach().contiguous() for name, tensor in model.named_parameters()}

    results = {"whole": go(None)}
    shared = Shared(Path(folder) / "checkpoint")
    results["parts"] = [go(shared, stop=1), go(shared)][1]
    loop.POLL_BATCHES = 1
    shared = Shared(Path(folder) / "midway")
    results["midway"] = [go(shared, preempt=5), go(shared)][1]  # after the first batch of the second epoch
    tensors = {f"{run}.{name}": tensor for run, state in results.items() for name, tensor in state.items()}
    save_file({**tensors, "losses": torch.tensor(losses)}, f"{folder}/rank{rank}.safetensors")
    torch.distributed.destroy_process_group()


def test_two_workers_train_both_networks_and_resume_them(tmp_path: Path) -> None:
    run_two(as_rank, tmp_path)
    one, other = (load_file(tmp_path / f"rank{rank}.safetensors") for rank in (0, 1))
    losses = one.pop("losses").tolist()
    assert other.pop("losses").tolist() == []  # rank 0 speaks for the group
    assert losses[3:6] == losses[6:] == losses[:3]
    assert same(one, other), "workers average gradients, so their weights agree"
    for name in (name for name in one if name.startswith("whole.")):
        for run in ("parts.", "midway."):
            assert torch.equal(one[name], one[name.replace("whole.", run)]), run + name

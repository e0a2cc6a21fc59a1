"""The one training loop: the same bytes however often it is interrupted, best epochs, workers."""

import contextlib
import itertools
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from orchestrator.config import Defense, Mid, Model, Recipe
from orchestrator.config.base import Refused
from orchestrator.defenses import defended, objective
from orchestrator.models.build import build_classifier
from orchestrator.models.freezing import freeze
from orchestrator.training import loop as training
from orchestrator.training.loop import Fitted, Objective, fit, predict
from orchestrator.training.objectives import classification, distillation, reconstruction
from orchestrator.training.pairs import Pairs, as_unit, hold_out
from orchestrator.training.seeds import derive_seed, seeded
from orchestrator.training.world import Cancelled, Diverged, Preempted, World
from tests.ranks import run_two

RECIPE = Recipe(epochs=4, batch_size=16, learning_rate=0.01, weight_decay=1e-4, validation_fraction=0.2)


class Memory:
    """A checkpoint that counts."""

    key = "k" * 64

    def __init__(self) -> None:
        self.data: bytes | None = None
        self.saves = 0

    def load(self) -> bytes | None:
        """Return what was saved last."""
        return self.data

    def save(self, data: bytes) -> None:
        """Replace it."""
        self.data, self.saves = data, self.saves + 1


def pairs(number: int = 60) -> Pairs:
    """Return images of two classes that differ in brightness, (number, 1, 32, 32) uint8."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(number) % 2
    noise = torch.randint(0, 120, (number, 1, 32, 32), generator=generator)
    return Pairs((noise + 100 * labels[:, None, None, None]).to(torch.uint8), labels)


def network() -> Any:
    """Return an untrained classifier with dropout and batch norms."""
    model = Model(name="ami-digit", width=0.01)
    return seeded(lambda: build_classifier(model, classes=2, channels=1, image_size=32), 3)


def trained(world: World, model: Any = None, recipe: Recipe = RECIPE) -> tuple[dict[str, Tensor], Fitted]:
    """Fit a network and return its weights and the fit."""
    torch.set_num_threads(1)
    model = network() if model is None else model
    fitted = fit(model, pairs(), classification(), recipe, 7, world)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, fitted


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Return whether two networks have the same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def stopping_after(epoch: int) -> Callable[[Mapping[str, float]], bool]:
    """Ask to stop once an epoch is reported; the checkpoint of that epoch is not written any more."""
    return lambda metrics: metrics["epoch"] < epoch


def noting(epochs: list[float]) -> Callable[[Mapping[str, float]], bool]:
    """Keep the epochs that are reported."""

    def report(metrics: Mapping[str, float]) -> bool:
        epochs.append(metrics["epoch"])
        return True

    return report


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_interrupted_at_any_epoch_it_ends_with_the_same_bytes(epoch: int) -> None:
    undisturbed, whole = trained(World())
    memory = Memory()

    def killed(metrics: Mapping[str, float]) -> bool:
        if metrics["epoch"] == epoch + 1:
            raise KeyboardInterrupt  # after the checkpoint of `epoch`, in the middle of what follows
        return True

    with pytest.raises(KeyboardInterrupt):
        trained(World(checkpoint=memory, checkpoint_seconds=0.0, report=killed))
    assert memory.saves == epoch
    epochs: list[float] = []
    world = World(checkpoint=memory, report=noting(epochs))
    resumed, rest = trained(world)
    assert epochs == list(range(epoch + 1, 5))
    assert same(resumed, undisturbed)
    assert rest == whole


def test_interrupted_again_and_again_it_ends_with_the_same_bytes() -> None:
    undisturbed, whole = trained(World())
    memory = Memory()
    for epoch in (2, 3, 4):
        with pytest.raises(Cancelled, match=f"stopped after epoch {epoch} of 4"):
            trained(World(checkpoint=memory, checkpoint_seconds=0.0, report=stopping_after(epoch)))
        # the epoch that asked to stop has been saved as well, unless it is the last one
        assert memory.saves == min(epoch, 3)
    resumed, rest = trained(World(checkpoint=memory))
    assert same(resumed, undisturbed)
    assert rest == whole


def leaving_after(batches: int) -> Callable[[], bool]:
    """Ask to leave once so many batches have begun."""
    asked = itertools.count()
    return lambda: next(asked) >= batches


@pytest.mark.parametrize("batches", [0, 1, 2, 3, 5])  # of three in each epoch
def test_left_in_the_middle_of_an_epoch_it_ends_with_the_same_bytes(batches: int) -> None:
    undisturbed, whole = trained(World())
    memory = Memory()
    number, done = divmod(batches, 3)
    with pytest.raises(Preempted, match=f"preempted in epoch {number + 1} of 4, {done} batches done"):
        trained(World(checkpoint=memory, is_preempted=leaving_after(batches)))
    assert memory.saves == 1
    resumed, rest = trained(World(checkpoint=memory))
    assert same(resumed, undisturbed)
    assert rest == whole


def test_left_at_every_batch_it_still_ends_with_the_same_bytes() -> None:
    undisturbed, whole = trained(World())
    memory, num_left = Memory(), 0
    while True:
        try:
            resumed, rest = trained(World(checkpoint=memory, is_preempted=leaving_after(1)))
            break
        except Preempted:
            num_left += 1
    assert num_left == 3 * 4 - 1
    assert same(resumed, undisturbed)
    assert rest == whole


def test_an_epoch_longer_than_the_interval_leaves_checkpoints_in_its_middle() -> None:
    undisturbed, _ = trained(World())
    memory = Memory()
    world = World(checkpoint=memory, checkpoint_seconds=1e-9, report=stopping_after(1))
    with pytest.raises(Cancelled):
        trained(world)
    assert memory.saves > 1
    assert same(trained(World(checkpoint=memory))[0], undisturbed)


@pytest.mark.parametrize(("rate", "where"), [(1e18, "batch [23] of 3"), (0.01, "validation_loss is inf")])
def test_a_loss_that_is_no_number_fails_and_says_where(rate: float, where: str) -> None:
    recipe = RECIPE.model_copy(update={"optimizer": "sgd", "learning_rate": rate})
    plain = classification()

    def sums(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
        found = plain.sums(model, images, labels)
        return found if rate > 1 else {**found, "loss": float("inf")}

    with pytest.raises(Diverged, match=where) as caught:
        fit(network(), pairs(), replace(plain, sums=sums), recipe, 7, World())
    assert "epoch 1 of 4" in str(caught.value)
    assert "lower recipe.learning_rate" in str(caught.value)


def test_frozen_networks_resume_bit_for_bit_too() -> None:
    def frozen() -> Any:
        model = network()
        freeze(model, "block1", "weights+statistics")
        return model

    undisturbed, _ = trained(World(), frozen())
    memory = Memory()
    with pytest.raises(Cancelled):
        trained(World(checkpoint=memory, checkpoint_seconds=0.0, report=stopping_after(2)), frozen())
    assert same(trained(World(checkpoint=memory), frozen())[0], undisturbed)


@pytest.mark.parametrize("damage", ["flip", "cut", "text", "empty"])
def test_a_damaged_checkpoint_is_reported_and_ignored(damage: str, caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory()
    with pytest.raises(Cancelled):
        trained(World(checkpoint=memory, checkpoint_seconds=0.0, report=stopping_after(2)))
    assert memory.data is not None
    data = memory.data
    middle = len(data) - 100
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    memory.data = {"flip": flipped, "cut": data[: len(data) // 2], "text": b"not a checkpoint", "empty": b""}[
        damage
    ]
    epochs: list[float] = []
    with caplog.at_level(logging.WARNING):
        weights, _ = trained(World(checkpoint=memory, report=noting(epochs)))
    assert epochs == [1, 2, 3, 4]
    assert "event=checkpoint_dropped" in caplog.text
    assert "action=start_over" in caplog.text
    assert same(weights, trained(World())[0])


def test_checkpoints_are_written_when_their_time_has_come_and_not_at_the_end() -> None:
    often, seldom = Memory(), Memory()
    trained(World(checkpoint=often, checkpoint_seconds=0.0))
    trained(World(checkpoint=seldom, checkpoint_seconds=1000.0))
    assert (often.saves, seldom.saves) == (3, 0)


def test_cancelled_says_where_it_stopped() -> None:
    with pytest.raises(Cancelled, match="stopped after epoch 2 of 4"):
        trained(World(report=stopping_after(2)))


def test_the_best_epoch_is_kept_not_the_last() -> None:
    seen: list[dict[str, Tensor]] = []
    model = network()
    losses = iter([3.0, 1.0, 2.0, 1.0])  # of two equal epochs the earlier one is kept
    objective = Objective(
        classification().loss,
        lambda model, inputs, wanted: {"loss": next(losses)},
        reconstruction().selection_key,
    )

    def keep(metrics: Mapping[str, float]) -> bool:
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return True

    fitted = fit(model, pairs(), objective, RECIPE, 7, World(report=keep))
    assert fitted.best_epoch == 2
    assert same(model.state_dict(), seen[1])
    assert not same(seen[1], seen[3])


def test_a_best_epoch_from_before_an_interruption_is_kept() -> None:
    memory = Memory()
    best: dict[str, Tensor] = {}
    model = network()

    def go(model: Any, losses: list[float], report: Callable[[Mapping[str, float]], bool]) -> Fitted:
        left = iter(losses)
        selection_key = reconstruction().selection_key
        sums = lambda model, inputs, wanted: {"loss": next(left)}  # noqa: E731
        objective = Objective(classification().loss, sums, selection_key)
        world = World(checkpoint=memory, checkpoint_seconds=0.0, report=report)
        return fit(model, pairs(), objective, RECIPE, 7, world)

    def stop(metrics: Mapping[str, float]) -> bool:
        if metrics["epoch"] == 1:
            best.update({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return metrics["epoch"] < 2

    with pytest.raises(Cancelled):
        go(model, [1.0, 2.0], stop)
    resumed = network()
    fitted = go(resumed, [3.0, 4.0], lambda metrics: True)
    assert fitted.best_epoch == 1
    assert same(resumed.state_dict(), best)
    assert [round(12 * value) for value in fitted.curves["validation_loss"]] == [1, 2, 3, 4]


def test_classification_prefers_accuracy_then_loss_and_reconstruction_the_loss() -> None:
    selection_key = classification().selection_key
    assert selection_key({"accuracy": 0.9, "loss": 5.0}) < selection_key({"accuracy": 0.8, "loss": 0.1})
    assert selection_key({"accuracy": 0.9, "loss": 0.1}) < selection_key({"accuracy": 0.9, "loss": 0.2})
    assert reconstruction().selection_key({"loss": 0.1}) < reconstruction().selection_key({"loss": 0.2})


def test_sums_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0]]).log_softmax(1)
    sums = classification().sums(nn.Identity(), logits, torch.tensor([0, 1]))
    assert sums["loss"] == pytest.approx(2 * 0.6931472)
    assert sums["accuracy"] == 1  # argmax takes the first of two equal logits
    wrong = torch.tensor([[[[0.5, 1.0]]], [[[0.0, 0.0]]]])
    found = reconstruction().sums(nn.Identity(), wrong, torch.zeros_like(wrong))
    assert found == {"loss": pytest.approx(0.625)}
    scores = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
    copied = distillation().sums(nn.Identity(), logits, scores)
    assert copied == {"loss": pytest.approx(2 * 0.6931472), "agreement": 1}


def test_frozen_parameters_never_change_and_fixed_statistics_neither() -> None:
    for mode, keeps_statistics in (("weights", False), ("weights+statistics", True)):
        model = network()
        freeze(model, "block2", mode)  # type: ignore[arg-type]
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        after, _ = trained(World(), model)
        for name in before:
            is_frozen = name.startswith(("blocks.0.", "blocks.1."))
            is_statistic = "running" in name or "tracked" in name
            keeps = is_frozen and (keeps_statistics or not is_statistic)
            assert torch.equal(before[name], after[name]) is keeps, (mode, name)


def test_the_order_of_the_data_depends_on_seed_and_epoch_only() -> None:
    def orders(seed: int, memory: Memory, stop: int = 9) -> list[Tensor]:
        batches: list[Tensor] = []

        def loss(model: nn.Module, inputs: Tensor, wanted: Tensor) -> Tensor:
            batches.append(wanted.clone())
            return nn.functional.mse_loss(model(inputs), wanted)

        number = torch.arange(40, dtype=torch.float32)[:, None]
        objective = Objective(loss, reconstruction().sums, reconstruction().selection_key)
        recipe = Recipe(epochs=3, batch_size=8)
        world = World(checkpoint=memory, checkpoint_seconds=0.0, report=stopping_after(stop))
        try:
            fit(nn.Linear(1, 1), Pairs(number, number), objective, recipe, seed, world)
        except Cancelled:
            return batches
        return batches

    whole = orders(1, Memory())
    memory = Memory()
    parts = orders(1, memory, stop=2) + orders(1, memory)
    assert len(whole) == len(parts) == 3 * 5  # 36 training numbers make 4 full batches and one of 4
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))
    first, second = torch.cat(whole[:5]), torch.cat(whole[5:10])
    assert not torch.equal(first, second)
    assert torch.equal(first.sort(dim=0).values, second.sort(dim=0).values)
    assert not torch.equal(first, torch.cat(orders(2, Memory())[:5]))


def test_nothing_reads_or_moves_the_global_generator() -> None:
    torch.manual_seed(1)
    first = trained(World())[0]
    after = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(3))
    torch.manual_seed(2)
    assert same(first, trained(World())[0])


def test_the_fit_returns_what_it_held_out() -> None:
    """Training batches hold every other pair in each epoch, held-out sums these."""
    seen: dict[str, list[int]] = {"loss": [], "sums": []}

    def noting(name: str) -> Callable[[nn.Module, Tensor, Tensor], Any]:
        def function(model: nn.Module, inputs: Tensor, wanted: Tensor) -> Any:
            seen[name] += wanted[:, 0].int().tolist()
            plain = reconstruction()
            return (plain.loss if name == "loss" else plain.sums)(model, inputs, wanted)

        return function

    number = torch.arange(30, dtype=torch.float32)[:, None]
    objective = Objective(noting("loss"), noting("sums"), reconstruction().selection_key)
    recipe = Recipe(epochs=1, batch_size=8, validation_fraction=0.2)
    fitted = fit(nn.Linear(1, 1), Pairs(number, number), objective, recipe, 3, World())
    assert seen["sums"] == list(fitted.held_out)
    assert sorted([*seen["loss"], *fitted.held_out]) == list(range(30))
    kept, held_out = hold_out(30, 0.2, 3)
    assert fitted.held_out == tuple(held_out.tolist())
    assert sorted(seen["loss"]) == sorted(kept.tolist())


def test_nothing_is_held_out_where_other_pairs_choose_the_epoch() -> None:
    fitted = fit(network(), pairs(), classification(), RECIPE, 7, World(), chosen_on=pairs(8))
    assert fitted.held_out == ()
    assert fitted.images_seen == 4 * 60


def test_too_few_images_are_refused() -> None:
    with pytest.raises(
        ValueError,
        match="1 images are left to train on 1 workers after holding out 1 of 2; at least 2 are needed",
    ):
        fit(network(), pairs(2), classification(), RECIPE, 0, World())


def test_seeds_and_units() -> None:
    assert derive_seed("a", 1) == derive_seed("a", "1") != derive_seed("a1")
    assert 0 <= derive_seed("x") < 2**63
    assert torch.equal(as_unit(torch.tensor([0, 255], dtype=torch.uint8)), torch.tensor([0.0, 1.0]))
    assert same(network().state_dict(), network().state_dict())
    assert predict(network(), pairs(3).inputs, torch.device("cpu")).shape == (3, 2)


@dataclass
class Shared:
    """A checkpoint that the ranks of one group share."""

    path: Path
    key: str = "k" * 64

    def load(self) -> bytes | None:
        """Return what was saved last."""
        return self.path.read_bytes() if self.path.exists() else None

    def save(self, data: bytes) -> None:
        """Replace it."""
        self.path.write_bytes(data)


def as_rank(rank: int, size: int, folder: str) -> None:
    """Train as one of several processes, undisturbed and interrupted; leave both weights and the losses."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size
    )
    losses: list[float] = []

    def go(checkpoint: Shared | None, stop: int, leave: int = 99) -> dict[str, Tensor]:
        def report(metrics: Mapping[str, float]) -> bool:
            losses.append(metrics["train_loss"])
            return metrics["epoch"] < stop

        # Each epoch counts as better than the last, so that rank 0 ends with the last one like the rest.
        order = itertools.count()
        objective = Objective(classification().loss, classification().sums, lambda means: (next(order),))
        world = World(rank=rank, size=size, checkpoint=checkpoint, checkpoint_seconds=0.0, report=report)
        world.is_preempted = leaving_after(leave)
        model = network()
        with contextlib.suppress(Cancelled, Preempted):
            fit(model, pairs(), objective, RECIPE, 7, world)
        return {name: tensor.detach().contiguous() for name, tensor in model.named_parameters()}

    whole = go(None, 99)
    shared = Shared(Path(folder) / "checkpoint")
    parts = [go(shared, 2), go(shared, 99)][1]
    training.POLL_BATCHES = 1
    shared = Shared(Path(folder) / "midway")
    midway = [go(shared, 99, leave=4), go(shared, 99)][1]  # after the first batch of the second epoch
    tensors = {f"whole.{name}": tensor for name, tensor in whole.items()}
    tensors |= {f"parts.{name}": tensor for name, tensor in parts.items()}
    tensors |= {f"midway.{name}": tensor for name, tensor in midway.items()}
    save_file({**tensors, "losses": torch.tensor(losses)}, f"{folder}/rank{rank}.safetensors")
    torch.distributed.destroy_process_group()


def test_two_workers_train_one_network_and_resume_it(tmp_path: Path) -> None:
    run_two(as_rank, tmp_path)
    one, other = (load_file(tmp_path / f"rank{rank}.safetensors") for rank in (0, 1))
    losses = one.pop("losses").tolist()
    assert other.pop("losses").tolist() == []  # rank 0 speaks for the group
    assert losses[3] < 0.8 * losses[0]
    assert losses[4:8] == losses[:4]
    assert losses[8:] == losses[:4], "an epoch that was left in its middle reports another loss"
    assert same(one, other)
    for name in (name for name in one if name.startswith("whole.")):
        assert torch.equal(one[name], one[name.replace("whole.", "parts.")]), name
        assert torch.equal(one[name], one[name.replace("whole.", "midway.")]), name


def test_a_batch_too_small_for_the_workers_is_refused() -> None:
    recipe = RECIPE.but(batch_size=3)
    message = "recipe.batch_size=3 must be at least 4, two images for each of 2 workers; set it to 4 or more."
    with pytest.raises(Refused, match=re.escape(message)):
        fit(network(), pairs(), classification(), recipe, 0, World(rank=1, size=2))


def test_too_few_images_for_the_workers_are_refused_on_every_rank() -> None:
    with pytest.raises(
        ValueError,
        match="5 images are left to train on 3 workers after holding out 1 of 6; at least 6 are needed",
    ):
        fit(network(), pairs(6), classification(), RECIPE, 0, World(rank=2, size=3))


def test_milestones_reach_the_steps_and_survive_an_interruption() -> None:
    rates: list[float] = []

    def noted(optimizer: torch.optim.Optimizer, batch_size: int) -> torch.optim.Optimizer:
        optimizer.register_step_pre_hook(lambda *_: rates.append(optimizer.param_groups[0]["lr"]))
        return optimizer

    def go(memory: Memory, stop: int) -> dict[str, Tensor]:
        recipe = RECIPE.model_copy(update={"milestones": (1, 3), "optimizer": "sgd"})
        world = World(checkpoint=memory, checkpoint_seconds=0.0, report=stopping_after(stop))
        model = network()
        with contextlib.suppress(Cancelled):
            fit(model, pairs(), replace(classification(), steps_by=noted), recipe, 7, world)
        return model.state_dict()

    whole = go(Memory(), 9)
    assert rates == pytest.approx([0.01] * 3 + [0.001] * 6 + [0.0001] * 3)  # 48 images in batches of 16
    memory, before = Memory(), list(rates)
    rates.clear()
    go(memory, 2)
    resumed = go(memory, 9)
    assert rates == before
    assert same(resumed, whole)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "amsgrad"])
@pytest.mark.parametrize("augmentation", ["flip", "crop-jitter-flip"])
def test_augmented_training_resumes_bit_for_bit(optimizer: str, augmentation: str) -> None:
    recipe = RECIPE.model_copy(update={"optimizer": optimizer, "augmentation": augmentation})
    undisturbed, whole = trained(World(), recipe=recipe)
    memory = Memory()
    with pytest.raises(Cancelled):
        trained(World(checkpoint=memory, checkpoint_seconds=0.0, report=stopping_after(2)), recipe=recipe)
    resumed, rest = trained(World(checkpoint=memory), recipe=recipe)
    assert same(resumed, undisturbed)
    assert rest == whole
    assert not same(
        undisturbed, trained(World(), recipe=RECIPE.model_copy(update={"optimizer": optimizer}))[0]
    )


@pytest.mark.parametrize("noise_at_inference", [True, False])
def test_a_noisy_head_repeats_byte_for_byte_also_when_interrupted(noise_at_inference: bool) -> None:
    defense = Defense(mid=Mid(weight=0.01, noise_at_inference=noise_at_inference))

    def go(world: World) -> tuple[dict[str, Tensor], Fitted]:
        torch.set_num_threads(1)
        model = network()
        seeded(lambda: defended(model, defense, 2), 3)
        fitted = fit(model, pairs(), objective(defense, 2), RECIPE, 7, world, snapshots=(1, 3))
        return model.state_dict(), fitted

    undisturbed, whole = go(World())
    torch.manual_seed(11)  # nobody else's numbers count
    again, second = go(World())
    memory = Memory()
    for epoch in (1, 3):
        with pytest.raises(Cancelled):
            go(World(checkpoint=memory, checkpoint_seconds=0.0, report=stopping_after(epoch)))
    resumed, rest = go(World(checkpoint=memory))
    assert same(undisturbed, again)
    assert same(undisturbed, resumed)
    assert whole.curves == second.curves == rest.curves
    assert whole.best == second.best == rest.best
    for fitted in (second, rest):
        assert sorted(fitted.snapshots) == [1, 3]
        assert all(same(whole.snapshots[epoch], fitted.snapshots[epoch]) for epoch in (1, 3))

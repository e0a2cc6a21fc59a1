"""Tests of the path of an accelerator on the emulated device, run by `test_accelerator.py` in one process.

That device must exist before any gradient is computed, so these are not collected with others.
"""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import rows
from benchmarks.accelerator import data
from orchestrator import config
from orchestrator.datasets import Location
from orchestrator.models.build import build_inverter
from orchestrator.stages import runner
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.threat import BlackBox, WhiteBox
from orchestrator.training import pairs as pairs_module
from orchestrator.training.checkpoint import load_state
from orchestrator.training.loop import fit, predict
from orchestrator.training.objectives import reconstruction
from orchestrator.training.pairs import Pairs
from orchestrator.training.world import World
from tests import emulated, tiny
from tests.attacks.test_contract import ROWS

DEVICE = emulated.device()
CPU = torch.device("cpu")
WIDTH = 0.02
DIGITS = rows.Network("ami-digit", 3, 1, 32, 16)


def place(device: torch.device, precision: str = "float32") -> rows.Place:
    """Return where a training runs, with narrow networks."""
    return rows.Place(device, precision, WIDTH)


def trained(
    name: str, device: torch.device, switch: Callable[[bool], None], precision: str = "float32"
) -> dict[str, Tensor]:
    """Train two epochs by `fit` and return the weights on the CPU."""
    where = place(device, precision)
    training = data.trainings(where, 32, 48)[name]
    data.watched_fit(training, where.world, switch)
    return {key: tensor.cpu() for key, tensor in training.model.state_dict().items()}


def counted(name: str, precision: str = "float32") -> tuple[dict[str, Tensor], Counter[str]]:
    """Train on the emulated device; return weights, and transfers from a batch's gathering to its step."""
    inside: Counter[str] = Counter()
    with emulated.Watch() as watch:
        before: list[Counter[str]] = []

        def switch(is_on: bool) -> None:
            if is_on:
                before.append(watch.transfers.copy())
            else:
                inside.update(watch.transfers - before.pop())

        weights = trained(name, DEVICE, switch, precision)
    return weights, inside


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["classifier", "classifier, flipped", "hinge prior"])
def test_no_step_of_a_training_waits_for_a_copy(name: str, precision: str) -> None:
    weights, inside = counted(name, precision)
    assert inside == {}
    if precision == "float32":  # autocast casts other operations on a CPU
        expected = trained(name, CPU, lambda is_on: None)
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[key], expected[key]) for key in expected)


def test_crops_and_colours_that_torchvision_draws_are_copied_to_the_device() -> None:
    weights, inside = counted("classifier, cropped and jittered")
    places = {key.partition(" at ")[2].partition(":")[0] for key in inside}
    assert places == {"training/augmentation.py"}
    assert all(key.startswith("write") for key in inside)
    expected = trained("classifier, cropped and jittered", CPU, lambda is_on: None)
    assert all(torch.equal(weights[key], expected[key]) for key in expected)


def test_what_outgrows_the_device_is_copied_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = counted("classifier")
    monkeypatch.setattr(pairs_module, "RESIDENT_BYTES", 0)
    weights, inside = counted("classifier")
    batches = 2 * 3  # 48 images less 10 % held out, 16 at a time, in two epochs
    assert sum(inside.values()) == 2 * batches
    assert all(torch.equal(weights[key], expected[key]) for key in expected)


def test_placed_pairs_are_uint8_on_the_device_and_share_their_images() -> None:
    images, labels = rows.pictures(8, 1, 4), torch.arange(8)
    with emulated.Watch():
        whole = Pairs(images, labels)
        placed = whole.at(torch.tensor([5, 1])).on(DEVICE)
        assert isinstance(placed.inputs, Tensor)
        assert (placed.inputs.dtype, placed.device) == (torch.uint8, DEVICE)
        batch, wanted = placed.batch(torch.tensor([1, 0], device=DEVICE), DEVICE)
        assert torch.equal(batch.cpu(), images[[1, 5]] / 255.0)
        assert wanted.tolist() == [1, 5]
    assert whole.on(CPU) is whole


def test_a_search_goes_on_without_the_host_within_a_segment() -> None:
    with emulated.Watch() as watch:
        ready = rows.ready("gmi-iteration", place(DEVICE), 3)
        with watch.counted() as transfers:
            ready.call()
    # Variable, velocity, steps, queries and whether rows are finished go to the device and back, classes go
    # there: once in a segment, of which these are several steps.
    assert rows.ITERATIONS > 6
    assert Counter(key.partition(" ")[0] for key in transfers.elements()) == {"write": 6, "read": 5}


@pytest.mark.parametrize("name", ["mia", "gmi", "kedmi", "ppa"])
def test_an_attack_is_the_same_on_every_device(name: str, tmp_path: Path) -> None:
    row = ROWS[name]
    quick = {**row.attack, "steps": 3}
    trial = tiny.spec({"attack": quick, **row.changes, "target.recipe": tiny.RECIPE})
    planned = tiny.stages(trial)
    stores = {device: Artifacts(DirectoryBlobs(tmp_path / device.type)) for device in (CPU, DEVICE)}
    for stage in planned.values():
        runner.run(stage, World(), stores[CPU], Location())
    with emulated.Watch():
        for stage in planned.values():
            runner.run(stage, World(device=DEVICE), stores[DEVICE], Location())
    for stage in planned.values():
        first, second = (stores[device].find(stage.key) for device in (CPU, DEVICE))
        assert first is not None
        assert second is not None
        assert second.metrics == pytest.approx(first.metrics, rel=1e-5, abs=1e-6), stage.label


def test_steps_are_in_bfloat16_and_scores_in_float32() -> None:
    seen: list[torch.dtype] = []
    network = rows.new_classifier(DIGITS, place(DEVICE)).eval()
    layer = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    layer.register_forward_hook(lambda module, given, made: seen.append(made.dtype))
    with emulated.Watch():
        network.to(DEVICE)
        images = rows.pictures(4, 1, 32).to(DEVICE) / 255.0
        with place(DEVICE, "bfloat16").world.autocast():
            network(images)
            BlackBox(network, config.Release()).query(images.cpu())  # as stages ask
            WhiteBox(network).logits(images)
        assert predict(network, images.cpu(), DEVICE).dtype == torch.float32
    assert seen == [torch.bfloat16, torch.float32, torch.float32, torch.float32]


@pytest.mark.parametrize(
    ("listed", "names"), [("LOWER_PRECISION_FP", "IN_BFLOAT16"), ("PROMOTE", "PROMOTED")]
)
def test_autocast_casts_the_operations_that_it_casts_on_cuda(listed: str, names: str) -> None:
    header = (Path(torch.__file__).parent / "include/ATen/autocast_mode.h").read_text(encoding="utf-8")
    lines = header.partition(f"#define AT_FORALL_{listed}(_)")[2].partition("\n\n")[0]
    expected = {one.replace(", ", ".") for one in re.findall(r"_\(([\w, ]+)\)", lines)}
    beside = {"cudnn_convolution", "cudnn_convolution_transpose"}  # registered for CUDA alone
    assert expected
    assert set(getattr(emulated, names)) - beside == expected


def test_steps_cast_matrix_times_vector_and_promote_its_product_with_a_vector() -> None:
    with emulated.Watch(), place(DEVICE, "bfloat16").world.autocast():
        matrix, vector = torch.ones(3, 3, device=DEVICE), torch.ones(3, device=DEVICE)
        lowered = [torch.mv(matrix, vector), torch.einsum("ij,j->i", matrix, vector)]
        lowered += [torch.addmv(vector, matrix, vector), functional.prelu(matrix, vector)]
        assert {one.dtype for one in lowered} == {torch.bfloat16}
        assert torch.vdot(vector, lowered[0]).dtype == torch.float32


def test_a_solution_whose_success_the_host_asks_for_is_a_wait() -> None:
    with emulated.Watch() as watch:
        matrix = torch.eye(3, device=DEVICE)
        torch.linalg.solve_ex(matrix, matrix)
        assert not watch.transfers
        torch.linalg.solve(matrix, matrix)
    assert [key.partition(" at ")[0] for key in watch.transfers] == ["read _linalg_check_errors"]


def test_images_and_weights_are_channels_last_where_steps_run() -> None:
    network, pairs = rows.inverter_parts(DIGITS, place(DEVICE), 16)
    layouts: list[bool] = []
    with emulated.Watch():
        fit(network, pairs, reconstruction(), config.Recipe(epochs=1, batch_size=8), 0, World(device=DEVICE))
        for tensor in network.parameters():
            if tensor.dim() == 4:
                layouts.append(tensor.is_contiguous(memory_format=torch.channels_last))
    assert layouts
    assert all(layouts)


def test_a_checkpoint_of_the_device_resumes_there_with_equal_bytes() -> None:
    class Kept:
        key = "kept"

        def __init__(self) -> None:
            self.all: list[bytes] = []

        def load(self) -> bytes | None:
            return self.all[-1] if self.all else None

        def save(self, data: bytes) -> None:
            self.all.append(data)

    def train(kept: Kept) -> tuple[dict[str, Tensor], Any]:
        network, pairs = rows.inverter_parts(DIGITS, place(DEVICE), 40)
        world = World(device=DEVICE, checkpoint=kept, checkpoint_seconds=1e-9)
        with emulated.Watch():
            fitted = fit(network, pairs, reconstruction(), config.Recipe(epochs=2, batch_size=8), 0, world)
            return {name: tensor.cpu() for name, tensor in network.state_dict().items()}, fitted.curves

    whole = Kept()
    weights, curves = train(whole)
    middle = Kept()
    middle.all = whole.all[: len(whole.all) // 2]
    saved = load_state(middle)
    assert saved is not None
    assert saved[1]["num_batches"] > 0  # within an epoch
    resumed, again = train(middle)
    assert again == curves
    assert all(torch.equal(resumed[name], weights[name]) for name in weights)


def test_transposed_convolutions_give_a_device_torchs_own_and_the_cpu_the_same_values() -> None:
    network = build_inverter(
        config.Model(name="ami-digit", width=WIDTH), classes=3, channels=1, image_size=32
    )
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    expected = network(z).detach()
    used: Counter[str] = Counter()
    own = functional.conv_transpose2d
    with pytest.MonkeyPatch.context() as patch, emulated.Watch():
        patch.setattr(functional, "conv_transpose2d", lambda *a, **k: used.update(["own"]) or own(*a, **k))
        made = network.to(DEVICE)(z.to(DEVICE)).detach().cpu()
    assert used["own"] == 4
    torch.testing.assert_close(made, expected)


def test_an_operation_on_two_devices_is_refused_as_on_an_accelerator() -> None:
    with emulated.Watch() as watch:
        placed = torch.ones(2, 3, device=DEVICE)
        with pytest.raises(RuntimeError, match="same device"):
            placed + torch.ones(3)
        assert (placed + torch.tensor(2.0)).tolist() == [[3.0] * 3] * 2  # a number goes by value
        watch.transfers.clear()
        assert placed[0, 0].item() == 1.0
        placed[torch.tensor([1, 0])]
        placed[placed > 0]
        torch.nonzero(placed)
    assert sorted(key.partition(" at ")[0] for key in watch.transfers) == [
        "read _local_scalar_dense",
        "read index",
        "read nonzero",
        "write index",
    ]

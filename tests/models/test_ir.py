"""IR networks have the counted parameters at each cut and the layers of the public backbones."""

import re

import pytest
import torch
from torch import nn

from orchestrator.models.budgets import budget_counts
from orchestrator.models.freezing import freeze, outline_of
from orchestrator.models.ir import FaceNet, FaceNet64, Ir, Ir152, Projection, Unit

SIZES = {Ir152: 64, FaceNet64: 64, FaceNet: 112}


def meta(build: type[Ir], width: float = 1.0) -> Ir:
    with torch.device("meta"):
        return build(classes=1000, channels=3, image_size=SIZES[build], width=width)


def small(build: type[Ir], image_size: int, channels: int = 3) -> Ir:
    return build(classes=5, channels=channels, image_size=image_size, width=0.125).eval()


@pytest.mark.parametrize(
    ("build", "cut", "millions"),
    [
        (Ir152, "full", 62.600),
        (Ir152, "unit46", 17.825),  # printed 17.8
        (FaceNet64, "full", 35.437),
        (FaceNet64, "unit5", 34.392),  # printed 34.4
        (FaceNet, "full", 44.088),
    ],
)
def test_cuts_leave_the_counted_parameters(build: type[Ir], cut: str, millions: float) -> None:
    assert round(budget_counts(outline_of(meta(build)))[cut] / 1e6, 3) == millions


@pytest.mark.parametrize(
    ("build", "budget", "millions"), [(Ir152, "units0-46", 17.827), (FaceNet64, "units0-5", 34.394)]
)
def test_released_budgets_leave_the_input_layer_trainable(
    build: type[Ir], budget: str, millions: float
) -> None:
    frozen = freeze(meta(build), budget)
    assert round(frozen.trainable / 1e6, 3) == millions
    assert frozen.prefix == 0  # the first block trains, so no activation can be computed once


@pytest.mark.parametrize("build", SIZES)
def test_the_released_code_leaves_two_thousand_more_trainable(build: type[Ir]) -> None:
    counts = budget_counts(outline_of(meta(build)))
    assert counts["full"] - counts["input"] == 64 * 3 * 9 + 3 * 64  # convolution; batch norm and PReLU


@pytest.mark.parametrize(("build", "units"), [(Ir152, 50), (FaceNet64, 24), (FaceNet, 24)])
def test_there_is_a_cut_after_every_unit(build: type[Ir], units: int) -> None:
    counts = budget_counts(outline_of(meta(build)))
    assert list(counts) == ["full", "input", *(f"unit{place}" for place in range(units))]
    assert list(counts.values()) == sorted(set(counts.values()), reverse=True)


def test_units_project_where_the_width_changes_and_halve_where_a_stage_begins() -> None:
    network = small(FaceNet64, 64)
    units = [unit for unit in network.blocks if isinstance(unit, Unit)]
    projecting = [place for place, unit in enumerate(units) if isinstance(unit.shortcut, nn.Sequential)]
    halving = [place for place, unit in enumerate(units) if unit.residual[3].stride == (2, 2)]
    assert len(units) == 24
    assert projecting == [3, 7, 21]
    assert halving == [0, 3, 7, 21]


def test_unit_adds_a_strided_identity() -> None:
    unit, maps = Unit(8, 8, stride=2).eval(), torch.rand(2, 8, 6, 6)
    nn.init.zeros_(unit.get_parameter("residual.4.weight"))
    assert torch.equal(unit(maps), maps[:, :, ::2, ::2])


@pytest.mark.parametrize(("build", "image_size"), [(FaceNet, 112), (FaceNet64, 64), (Ir152, 32)])
@pytest.mark.parametrize("channels", [1, 3])
def test_embedding_feeds_the_head(build: type[Ir], image_size: int, channels: int) -> None:
    network = small(build, image_size, channels)
    images = torch.rand(2, channels, image_size, image_size)
    with torch.no_grad():
        features = network.features(images)
        assert features.shape == (2, network.num_features) == (2, 64)
        assert torch.equal(network.head(features), network(images))
        assert network(images).shape == (2, 5)


def test_hidden_representations_end_the_stages_and_the_last_is_the_embedding() -> None:
    network, images = small(FaceNet64, 64), torch.rand(2, 3, 64, 64)
    logits, hidden = network.with_hidden(images)
    assert torch.equal(logits, network(images))
    shapes = [(8, 32, 32), (16, 16, 16), (32, 8, 8), (64, 4, 4), (64,)]
    assert [tuple(one.shape[1:]) for one in hidden] == shapes
    assert torch.equal(hidden[-1], network.features(images))


@pytest.mark.parametrize("build", SIZES)
def test_thirds_are_two_stages_one_stage_and_the_rest(build: type[Ir]) -> None:
    network = meta(build)
    counts = [sum(network.stages[:2]), sum(network.stages[:3])]
    assert network.layer_groups == (1 + counts[0], 1 + counts[1])


def test_names_do_not_depend_on_width() -> None:
    assert list(meta(FaceNet64, 0.125).state_dict()) == list(meta(FaceNet64).state_dict())


@pytest.mark.parametrize(
    ("build", "name"), [(Ir152, "ir152"), (FaceNet64, "facenet64"), (FaceNet, "facenet")]
)
def test_other_sizes_are_refused(build: type[Ir], name: str) -> None:
    expected = (
        f"data.image_size=100 must be a multiple of 16 for {name}; resize the images, for example to 112."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        small(build, 100)


@pytest.mark.parametrize("inputs", [4, 8, 15, 16])
def test_a_projection_convolves_every_second_pixel_and_passes_its_gradient(inputs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    projection = Projection(inputs, 9, kernel_size=1, stride=2, bias=False)
    plain = nn.Conv2d(inputs, 9, kernel_size=1, stride=2, bias=False)
    plain.load_state_dict(projection.state_dict())
    maps = torch.rand(3, inputs, 16, 16, generator=generator)
    ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    # Ours in the layout that training uses, where a narrow plain convolution may end the process.
    projection.to(memory_format=torch.channels_last)
    out = projection(ours.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(out, plain(theirs))
    out.square().sum().backward()
    plain(theirs).square().sum().backward()
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(projection.weight.grad, plain.weight.grad)

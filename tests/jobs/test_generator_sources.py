"""Generators as people have them: NVIDIA's and rosinality's files give equal images, DCGAN's file is one."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from jobs.generator_sources import choose_generator, generator_file
from orchestrator.config.base import Refused
from orchestrator.datasets import Location, weights
from orchestrator.models.public_generators import public_generator
from orchestrator.store.directory import DirectoryBlobs
from tests.datasets.pickles import generator_pickle
from tests.jobs.test_stage_weights import refused, stage
from tests.models.faces import DCGAN, needed
from tests.models.stylegans import LATENT, SIDE, STYLE, in_rosinalitys_layout, small

ARGUMENTS = {"z_dim": LATENT, "c_dim": 0, "w_dim": STYLE, "img_resolution": SIDE, "img_channels": 3}


def as_saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def files() -> dict[str, bytes]:
    """Return one generator in every layout."""
    state = small().state_dict()
    return {
        "net.pkl": generator_pickle(state, ARGUMENTS),
        "net.pt": as_saved(in_rosinalitys_layout(state)),
        "net.safetensors": save(state),
    }


def test_every_layout_gives_the_same_images(tmp_path: Path) -> None:
    latents, blobs = torch.randn(3, LATENT), DirectoryBlobs(tmp_path / "data")
    for name, data in files().items():
        (tmp_path / name).write_bytes(data)
        result = stage(tmp_path / name, tmp_path / "data", "--name", "faces", "--model", "stylegan2")
        assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("already staged")  # the same tensors, from any file
    staged, side = public_generator(weights.load("faces", Location(blobs)), "faces")
    assert side == SIDE
    assert torch.equal(staged(latents), small()(latents))
    assert weights.describe("faces", Location(blobs)).source == "net.pkl"


def test_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(files()["net.pt"])
    path = tmp_path / "net.pt"
    text = f"--model=dcgan is not what {path} holds; use --model stylegan2."
    assert refused(path, tmp_path / "data", "--name", "faces", "--model", "dcgan") == text
    assert not (tmp_path / "data").exists()


def test_a_network_may_be_named() -> None:
    loaded = generator_file(files()["net.pt"], "net.pt")
    with pytest.raises(Refused, match=r"SOURCE=net\.pt is no generator of a known kind"):
        choose_generator(loaded, "net.pt", "g", "stylegan2")


def test_the_public_dcgan_file() -> None:
    needed(DCGAN)
    tensors = choose_generator(generator_file(DCGAN.read_bytes(), "weights.tar"), "weights.tar", "", "dcgan")
    network, _ = public_generator(tensors, "digiface")
    images = network(torch.randn(16, 100, generator=torch.Generator().manual_seed(0)))
    assert images.shape == (16, 3, 64, 64)
    assert 0.05 < images.std(dim=0).mean() < 0.4  # samples differ from each other

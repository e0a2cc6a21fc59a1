"""Faces and the face descriptor's weights that lie beside the project, where they do."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from orchestrator.models.face_descriptor import FaceDescriptor
from tests.test_floors import ROOT

DATA = ROOT.parent / "shared" / "data"
FACES = DATA / "lfw64.zip"
MANIFEST = DATA / "weights" / "face-descriptor" / "face_recognition_model-weights_manifest.json"
DCGAN = DATA / "weights" / "dcgan-digiface" / "weights.tar"


def needed(*files: Path) -> None:
    """Skip the test where one of the files is absent."""
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        pytest.skip(f"{', '.join(absent)} is not beside the project")


def people(number: int, pictures: int) -> tuple[Tensor, Tensor]:
    """Return as many pictures (N, 3, 64, 64) uint8 of each of the first people of LFW who have them, with
    labels (N,)."""
    with zipfile.ZipFile(FACES) as archive:
        files: dict[str, list[str]] = {}
        for name in sorted(archive.namelist()):
            if name.endswith(".jpg"):
                files.setdefault(name.split("/")[1], []).append(name)
        chosen = [names[:pictures] for names in files.values() if len(names) >= pictures][:number]
        pixels = [
            np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))
            for names in chosen
            for name in names
        ]
    labels = torch.arange(number).repeat_interleave(pictures)
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(), labels


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    """Return weights of the face descriptor's names and shapes, as they are staged, whose activations keep
    their size."""
    torch.manual_seed(seed)
    found = {}
    for name, tensor in FaceDescriptor().state_dict().items():
        inside, _, last = name.rpartition(".")
        path = inside.replace(".", "/")
        if tensor.ndim == 4:
            found[f"{path}/filters"] = tensor.permute(2, 3, 1, 0).contiguous()
        elif inside == "fc":
            found["fc"] = tensor.t().contiguous()
        elif inside.endswith("scale"):
            found[f"{path}/{'weights' if last == 'weight' else 'biases'}"] = tensor
        else:
            found[f"{path}/bias"] = tensor
    return found

"""What a red team has before it meets this project: pictures of people, and a ResNet-18 of others."""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision import models, transforms
from torchvision.datasets import ImageFolder

PEOPLE = ("fay", "Cem", "Zoe Ash", "bob")
"""Names of the classes in the order of the outputs, in another order and spelling than the folders'."""

SIDE = 96
_FOLDERS = ("Zoe Ash", "ada", "bob", "cem", "dia", "eve", "fay", "gus")


def make_pictures(folder: Path, count: int = 20) -> None:
    """Write pictures of eight people, each of colours of their own with noise; half of them are public."""
    rng = np.random.default_rng(0)
    for name in _FOLDERS:
        colours = rng.random((6, 6, 3)) * 255
        (folder / name).mkdir(parents=True)
        for number in range(count):
            small = np.clip(colours + rng.normal(0, 25, colours.shape), 0, 255).astype(np.uint8)
            picture = Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            picture.save(folder / name / f"{number:02}.png")


def train(folder: Path, steps: int = 14) -> nn.Module:
    """Train a ResNet-18 as its own team does, on four of the people, with torchvision alone."""
    torch.manual_seed(0)
    scaled = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    pictures = ImageFolder(str(folder), transforms.Compose([transforms.ToTensor(), scaled]))
    label = {pictures.class_to_idx[name if name != "Cem" else "cem"]: k for k, name in enumerate(PEOPLE)}
    known = [(image, label[one]) for image, one in pictures if one in label]
    images, labels = torch.stack([one[0] for one in known]), torch.tensor([one[1] for one in known])
    network = models.resnet18(num_classes=len(PEOPLE))
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for batch in torch.randint(len(labels), (steps, 16)):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
        optimizer.step()
    return network.eval()


def save(network: nn.Module, folder: Path) -> None:
    """Save a network as net.pt, net.pt2 and net.onnx, and the names of its classes."""
    images = torch.zeros(2, 3, SIDE, SIDE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that older formats are no longer developed
        torch.jit.save(torch.jit.script(network), folder / "net.pt")
        any_number = ({0: torch.export.Dim("number")},)
        torch.export.save(
            torch.export.export(network, (images,), dynamic_shapes=any_number), folder / "net.pt2"
        )
        axes = {"images": {0: "number"}}
        file = str(folder / "net.onnx")
        torch.onnx.export(network, (images,), file, dynamo=False, input_names=["images"], dynamic_axes=axes)
    (folder / "names.txt").write_text("\n".join(PEOPLE) + "\n", encoding="utf-8")

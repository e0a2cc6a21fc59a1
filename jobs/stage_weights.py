"""Stage public weights once, for every sweep: `python -m jobs.stage_weights SOURCE DEST --name NAME`.

SOURCE: a file or S3 object (safetensors, or a state dict that loads with weights only), torchvision:NAME or
timm:NAME, which downloads the library's own weights. DEST: the data location of the sweeps, a directory or
s3://bucket/prefix. Calling it again with the same input does nothing.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import timm
import torch
import torchvision
import typer
from torch import Tensor, nn

from orchestrator import config
from orchestrator.datasets import weights
from orchestrator.models import CLASSIFIERS, build_classifier
from orchestrator.models.public import renamed
from orchestrator.runtime.open_store import check, open_blobs

app = typer.Typer(add_completion=False)


@app.command()
def main(
    source: Annotated[
        str, typer.Argument(help="A file, s3://bucket/object, torchvision:vgg16_bn or timm:resnest101e.in1k.")
    ],
    dest: Annotated[str, typer.Argument(help="Data location: a directory or s3://bucket/prefix.")],
    name: Annotated[str, typer.Option(help="Name of the weights in studies.")],
    model: Annotated[str, typer.Option(help="Check that they fit this classifier, e.g. vgg16.")] = "",
) -> None:
    """Write the weights and a manifest, or say in one line why not (exit code 2)."""
    try:
        blobs = open_blobs(dest)
        tensors = read(source)
        if model:
            _check_fit(tensors, model, name)
        check(blobs, option="DEST")
        manifest, is_new = weights.stage(tensors, _called(source), blobs, name)
    except (ValueError, OSError) as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None
    where = f"{blobs.uri.rstrip('/')}/{weights.FOLDER}/{name}"
    typer.echo(f"{'staged' if is_new else 'already staged, nothing written:'} {where}")
    numbers = sum(tensor.numel() for tensor in tensors.values())
    typer.echo(
        f"tensors: {len(manifest.shapes)}, {numbers / 1e6:.3f} million numbers, {manifest.file.size} bytes"
    )
    typer.echo(f"sha256: {manifest.file.sha256}")


def read(source: str) -> dict[str, Tensor]:
    """Return the state dict that SOURCE names."""
    library, _, called = source.partition(":")
    if library == "torchvision" and called:
        return _downloaded(source, lambda: torchvision.models.get_model(called, weights="DEFAULT"))
    if library == "timm" and called:
        return _downloaded(source, lambda: timm.create_model(called, pretrained=True))
    if source.startswith("s3://"):
        folder, _, file = source.rpartition("/")
        blobs = open_blobs(folder)
        check(blobs, option="SOURCE", writes=False)
        data = blobs.get(file)
        if data is None:
            raise ValueError(f"SOURCE={source} does not exist; check bucket and key.")
        return weights.parse_state(data, source)
    if not Path(source).is_file():
        raise ValueError(
            f"SOURCE={source} is no file; name one, s3://bucket/object, torchvision:NAME or timm:NAME."
        )
    return weights.parse_state(Path(source).read_bytes(), source)


def _downloaded(source: str, build: Callable[[], nn.Module]) -> dict[str, Tensor]:
    try:
        return build().state_dict()
    except Exception as error:  # the libraries raise whatever their downloader does
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"SOURCE={source} could not be had ({type(error).__name__}: {reason}); correct the name, or "
            "download the file elsewhere and stage that."
        ) from None


def _check_fit(tensors: Mapping[str, Tensor], model: str, name: str) -> None:
    if model not in CLASSIFIERS:
        raise ValueError(f"--model={model} is unknown; choose one of {', '.join(CLASSIFIERS)}.")
    side = CLASSIFIERS[model].image_size
    with torch.device("meta"):
        network = build_classifier(config.Model(name=model), classes=2, channels=3, image_size=side)
    renamed(network, tensors, name=name)


def _called(source: str) -> str:
    """Return how the manifest names the source: without a path, which says nothing about the content."""
    return source if source.startswith(("torchvision:", "timm:")) else source.rpartition("/")[2]


if __name__ == "__main__":
    app()

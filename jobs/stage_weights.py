"""Staging command for public weights: `python -m jobs.stage_weights SOURCE DEST --name NAME`.

SOURCE: a file or S3 object (safetensors, or a state dict that loads with weights only), torchvision:NAME or
timm:NAME, which downloads the library's weights. DEST: the data location of the sweeps, a directory or
s3://bucket/prefix. A second call with the same input writes nothing.
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
from orchestrator.config.base import Refused
from orchestrator.datasets import weights
from orchestrator.models import CLASSIFIERS
from orchestrator.models.build import build_classifier
from orchestrator.models.public import renamed
from orchestrator.runtime.open_store import check, open_blobs

app = typer.Typer(add_completion=False)


@app.command()
def main(
    source: Annotated[
        str,
        typer.Argument(help="Weights to stage: a file, s3://bucket/object, torchvision:NAME or timm:NAME."),
    ],
    dest: Annotated[
        str, typer.Argument(help="Data location of the sweeps: a directory or s3://bucket/prefix.")
    ],
    name: Annotated[str, typer.Option(help="Name the weights for studies.")],
    model: Annotated[
        str,
        typer.Option(help="Check that the weights fit this classifier, such as vgg16; default: no check."),
    ] = "",
) -> None:
    """Write the weights and a manifest; a refusal is one line and exit code 2."""
    try:
        blobs = open_blobs(dest)
        tensors = read(source)
        if model:
            _check_fit(tensors, model, name)
        check(blobs, option="DEST")
        manifest, is_new = weights.stage(tensors, _origin(source), blobs, name)
    except (ValueError, OSError) as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None
    where = f"{blobs.uri.rstrip('/')}/{weights.FOLDER}/{name}"
    typer.echo(f"{'staged' if is_new else 'already staged, nothing written:'} {where}")
    count = sum(tensor.numel() for tensor in tensors.values())
    typer.echo(
        f"tensors: {len(manifest.shapes)}, {count / 1e6:.3f} million numbers, {manifest.file.size} bytes"
    )
    typer.echo(f"sha256: {manifest.file.sha256}")


def read(source: str) -> dict[str, Tensor]:
    """Return the state dict at SOURCE, downloaded for a library's name; raise `Refused` if there is none."""
    library, _, name = source.partition(":")
    if library == "torchvision" and name:
        return _downloaded(source, lambda: torchvision.models.get_model(name, weights="DEFAULT"))
    if library == "timm" and name:
        return _downloaded(source, lambda: timm.create_model(name, pretrained=True))
    if source.startswith("s3://"):
        folder, _, file = source.rpartition("/")
        blobs = open_blobs(folder)
        check(blobs, option="SOURCE", writes=False)
        data = blobs.get(file)
        if data is None:
            raise Refused("SOURCE", source, "does not exist", "check bucket and key")
        return weights.parse_state(data, source)
    if not Path(source).is_file():
        way_out = "name one, s3://bucket/object, torchvision:NAME or timm:NAME"
        raise Refused("SOURCE", source, "is no file", way_out)
    return weights.parse_state(Path(source).read_bytes(), source)


def _downloaded(source: str, build: Callable[[], nn.Module]) -> dict[str, Tensor]:
    try:
        return build().state_dict()
    except Exception as error:  # the libraries' downloaders raise many types
        reason = " ".join(str(error).split())[:200]
        rule = f"could not be downloaded ({type(error).__name__}: {reason})"
        way_out = "correct the name, or download the file elsewhere and stage that"
        raise Refused("SOURCE", source, rule, way_out) from None


def _check_fit(tensors: Mapping[str, Tensor], model: str, name: str) -> None:
    if model not in CLASSIFIERS:
        raise Refused("--model", model, "is unknown", f"choose one of {', '.join(CLASSIFIERS)}")
    side = CLASSIFIERS[model].image_size
    with torch.device("meta"):
        network = build_classifier(config.Model(name=model), classes=2, channels=3, image_size=side)
    renamed(network, tensors, name=name)


def _origin(source: str) -> str:
    """Return the source for the manifest: a library's name or a file's, without its path."""
    return source if source.startswith(("torchvision:", "timm:")) else source.rpartition("/")[2]


if __name__ == "__main__":
    app()

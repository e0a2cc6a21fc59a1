"""Staging command for public weights: `python -m jobs.stage_weights SOURCE DEST --name NAME`.

SOURCE: a file or S3 object (safetensors, a checkpoint of torch, whose code never runs, or the JSON manifest
of TensorFlow.js weights, which lie beside it), torchvision:NAME or timm:NAME, which downloads the library's
weights. With --model stylegan2 or dcgan a generator for `prior.weights`: a pickle of NVIDIA's, whose code
never runs either, rosinality's .pt, or a state dict. DEST: the data location of the sweeps, a directory or
s3://bucket/prefix. A second call with the same input writes nothing.
"""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.config.base import Refused
from orchestrator.models import CLASSIFIERS
from orchestrator.models.generator_outlines import PATHS
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
        typer.Option(
            help="Check that the weights fit this classifier, such as vgg16, or that they are a generator: "
            "stylegan2 or dcgan; default: no check."
        ),
    ] = "",
    entry: Annotated[
        str,
        typer.Option(
            help="Take the network of this name in the checkpoint, such as state_dict; default: the only "
            "one, or a generator's average."
        ),
    ] = "",
) -> None:
    """Write the weights and a manifest; a refusal is one line and exit code 2."""
    try:
        blobs = open_blobs(dest)
        check_arguments(source, model)
        # Here, because torch, torchvision and timm take seconds to import and a refusal needs none.
        from jobs.weight_sources import chosen
        from orchestrator.datasets import weights

        tensors = chosen(source, entry, model, name)
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


def check_arguments(source: str, model: str) -> None:
    """Raise `Refused` for what is wrong before anything is read."""
    known = (*CLASSIFIERS, *PATHS)
    if model and model not in known:
        raise Refused("--model", model, "is unknown", f"choose one of {', '.join(known)}")
    if not is_library(source) and not source.startswith("s3://") and not Path(source).is_file():
        way_out = "name one, s3://bucket/object, torchvision:NAME or timm:NAME"
        raise Refused("SOURCE", source, "is no file", way_out)


def is_library(source: str) -> bool:
    """Return whether a source is the name of a library's weights."""
    library, _, name = source.partition(":")
    return library in ("torchvision", "timm") and bool(name)


def _origin(source: str) -> str:
    """Return the source for the manifest: a library's name or a file's, without its path."""
    return source if is_library(source) else source.rpartition("/")[2]


if __name__ == "__main__":
    app()

"""Staging command for public weights: `python -m jobs.stage_weights SOURCE DEST --name NAME`.

SOURCE: a file or S3 object (safetensors, a checkpoint of torch, whose code never runs, or the JSON manifest
of TensorFlow.js weights, which lie beside it), torchvision:NAME or timm:NAME, which downloads the library's
weights. With --model stylegan2 or dcgan a generator for `prior.weights`: a pickle of NVIDIA's, whose code
never runs either, rosinality's .pt, or a state dict. With --program a whole classifier, saved by
`torch.jit.save`, `torch.export.save` or as ONNX. With --service the description of one that answers over
HTTP, a YAML file. DEST: the data location of the sweeps, a directory or
s3://bucket/prefix. A second call with the same input writes nothing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from jobs.class_names import class_names
from jobs.service_sources import stage_service
from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.config.program import Outputs
from orchestrator.models import CLASSIFIERS
from orchestrator.models.generator_outlines import PATHS
from orchestrator.runtime.open_store import check, open_blobs

app = typer.Typer(add_completion=False)


@app.command()
def main(  # noqa: PLR0913 - one parameter per flag
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
    program: Annotated[
        bool,
        typer.Option(
            "--program",
            help="Stage a whole classifier instead of weights: a TorchScript, torch.export or ONNX file.",
        ),
    ] = False,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the images that the program takes, in pixels.")
    ] = None,
    channels: Annotated[int | None, typer.Option(help="Channels of these images, 1 or 3.")] = None,
    scaling: Annotated[
        Literal["unit", "imagenet", "signed"] | None,
        typer.Option(
            help="What the program takes images in: unit, [0, 1]; imagenet, standardised by ImageNet's mean "
            "and deviation; signed, [-1, 1]."
        ),
    ] = None,
    outputs: Annotated[Outputs | None, typer.Option(help="What the program returns of an image.")] = None,
    service: Annotated[
        bool,
        typer.Option("--service", help="Stage a service instead of weights: SOURCE is its description."),
    ] = False,
    classes: Annotated[
        str,
        typer.Option(
            help="File of the names of a classifier's classes, one a line, in the order of the outputs; "
            "default: none."
        ),
    ] = "",
) -> None:
    """Write the weights or the program and a manifest; a refusal is one line and exit code 2."""
    declared = {
        "--image-size": image_size,
        "--channels": channels,
        "--scaling": scaling,
        "--outputs": outputs,
    }
    try:
        blobs = open_blobs(dest)
        if service:
            of_files = {**declared, "--program": program or None, "--classes": classes or None}
            check_described({**of_files, "--model": model or None, "--entry": entry or None})
            typer.echo("\n".join(stage_service(source, blobs, name)))
            return
        check_arguments(source, model)
        check_declared(program, declared, {"--model": model, "--entry": entry})
        names = class_names(classes)
        if program:
            from jobs.program_sources import stage_program  # here, as it needs torch

            lines = stage_program(source, declared, names, blobs, name)
            typer.echo("\n".join(lines))
            return
        # Here, because torch, torchvision and timm take seconds to import and a refusal needs none.
        from jobs.weight_sources import check_outputs, chosen
        from orchestrator.datasets import weights

        tensors = chosen(source, entry, model, name)
        if names and model:
            check_outputs(names, tensors, model)
        check(blobs, option="DEST")
        manifest, is_new = weights.stage(tensors, _origin(source), blobs, name, names)
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


def check_described(of_files: Mapping[str, object]) -> None:
    """Raise `Refused` for options that a service's description has no use for."""
    for name, value in of_files.items():
        if value is not None:
            raise Refused(name, NO_VALUE, "is of a file, and SOURCE describes a service", "leave it out")


def check_declared(is_program: bool, declared: Mapping[str, object], of_weights: Mapping[str, str]) -> None:
    """Raise `Refused` for options that a program needs and lacks, or that belong to the other kind."""
    if not is_program:
        given = [name for name, value in declared.items() if value is not None]
        if given:
            raise Refused(given[0], NO_VALUE, "is of a program", "add --program or leave it out")
        return
    for name, value in of_weights.items():
        if value:
            raise Refused(
                name, value, "is of weights, and --program stages a whole classifier", "leave it out"
            )
    missing = [name for name, value in declared.items() if value is None]
    if missing:
        raise Refused(missing[0], NO_VALUE, "is missing: no program says it itself", "add it")


def is_library(source: str) -> bool:
    """Return whether a source is the name of a library's weights."""
    library, _, name = source.partition(":")
    return library in ("torchvision", "timm") and bool(name)


def _origin(source: str) -> str:
    """Return the source for the manifest: a library's name or a file's, without its path."""
    return source if is_library(source) else source.rpartition("/")[2]


if __name__ == "__main__":
    app()

"""Staging command for data sets, once for all sweeps: `python -m jobs.stage_data SOURCE DEST`.

SOURCE: digits, photo-patches, mnist:DIR, fashion-mnist:DIR, emnist:DIR, cifar10:DIR (torchvision's layout, on
disk; with --download torchvision fetches it first), facescrub:DIR, celeba:DIR (the authors' lists and the
images), an image folder with one directory per identity, a .zip of one, or a .npz with images and labels.
DEST: a directory or s3://bucket/prefix. A second call with the same input writes nothing, or completes an
interrupted staging.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress

from jobs.travel import warn_of_destination, warn_of_source
from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets.builtin import BUILTINS
from orchestrator.datasets.manifest import File, Manifest, Options, SplitRule, dump, standard_splits
from orchestrator.datasets.sources.base import Source
from orchestrator.datasets.sources.exclusion import read_names, without
from orchestrator.datasets.sources.identities import only, read_identities
from orchestrator.datasets.sources.registry import converted, open_source, settled
from orchestrator.datasets.sources.split_lists import SplitFiles, only_listed, read_split, with_lists
from orchestrator.datasets.staging import publish
from orchestrator.runtime.open_store import check, open_blobs
from orchestrator.runtime.words import sentences
from orchestrator.store.blobs import sha256

app = typer.Typer(add_completion=False)
# Sets that torchvision can download -> their names there.
DOWNLOADS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "emnist": "EMNIST", "cifar10": "CIFAR10"}
CROP = re.compile(r"\d{1,6},\d{1,6},[1-9]\d{0,5}")
SHARE_OF_SIDE = re.compile(r"([1-9]\d{0,5})/([1-9]\d{0,5})", re.ASCII)
SHARE = r"(\d{1,9}(\.\d{0,20})?|\.\d{1,20})"
SPLIT = re.compile(
    rf"(?P<name>[a-z0-9._-]{{1,64}})=(?P<fractions>{SHARE}(,{SHARE}){{2}})(@(?P<seed>\d{{1,10}}))?"
)
SPLIT_LIST = re.compile(
    r"(?P<name>[a-z0-9._-]{1,64})=([^,]*),([^,]*),([^,]*)"  # train, auxiliary, evaluation
)


@app.command()
def main(  # noqa: PLR0913 - one parameter per flag
    source: Annotated[
        str,
        typer.Argument(
            help="Data to stage: digits, photo-patches, NAME:DIR (mnist, fashion-mnist, emnist, cifar10, "
            "facescrub, celeba), an image folder, a .zip or a .npz."
        ),
    ],
    dest: Annotated[
        str, typer.Argument(help="Data location of the sweeps: a directory or s3://bucket/prefix.")
    ],
    name: Annotated[str, typer.Option(help="Name the set; default: the source's name.")] = "",
    crop: Annotated[
        str,
        typer.Option(
            help="Crop to LEFT,TOP,SIDE in pixels, to centre (the largest square) or to PART/WHOLE (the "
            "centre of each side, as 88/128) before resizing; default: the source's crop."
        ),
    ] = "",
    stretch: Annotated[
        bool,
        typer.Option(
            "--stretch", help="Admit images that are not square, uncropped; default: for facescrub only."
        ),
    ] = False,
    size: Annotated[int, typer.Option(help="Resize to this side in pixels; 0 (default) keeps the size.")] = 0,
    channels: Annotated[
        int, typer.Option(help="Convert to 1 (grey) or 3 (RGB) channels; 0 (default) keeps them.")
    ] = 0,
    split: Annotated[
        list[str] | None,
        typer.Option(
            help="Draw a split NAME=TRAIN,AUXILIARY,EVALUATION@SEED; repeat for several; default: the splits "
            "default, half and eighty, or none beside --split-list."
        ),
    ] = None,
    split_list: Annotated[
        list[str] | None,
        typer.Option(
            help="Take a split NAME=train.txt,auxiliary.txt,evaluation.txt from lists of images, one a line, "
            "with its label or without; a part may be empty; images on no list are left out; repeat for "
            "several; default: none."
        ),
    ] = None,
    on_bad: Annotated[
        str,
        typer.Option(
            help="Stop at (error, the default) or drop (skip) files that are not acceptable images."
        ),
    ] = "error",
    duplicates: Annotated[
        str, typer.Option(help="Drop (default) or keep images equal to an earlier one.")
    ] = "drop",
    min_images: Annotated[
        int,
        typer.Option(help="Leave out classes with fewer images, bad ones and copies not counted; default 1."),
    ] = 1,
    max_images: Annotated[
        int,
        typer.Option(help="Leave out classes with more images, counted alike; 0 (default) sets no limit."),
    ] = 0,
    per_class: Annotated[
        int,
        typer.Option(
            help="Keep at most this many images of each class, drawn at random; 0 (default) keeps all."
        ),
    ] = 0,
    exclude: Annotated[
        str,
        typer.Option(
            help="Leave out the classes named in the first column of this text or csv file; default: none."
        ),
    ] = "",
    identities: Annotated[
        str,
        typer.Option(
            help="Keep only the classes named in the first column of this text or csv file, in its order; "
            "default: all."
        ),
    ] = "",
    unlabelled: Annotated[
        bool,
        typer.Option(
            "--unlabelled",
            help="Stage images without classes, in any folders, for auxiliary sets; default: a class for "
            "each folder.",
        ),
    ] = False,
    download: Annotated[
        bool,
        typer.Option(
            "--download",
            help="Let torchvision download mnist, emnist, ... into DIR first; default: read DIR.",
        ),
    ] = False,
) -> None:
    """Write shards, labels, splits and a manifest; a refusal is one line and exit code 2."""
    try:
        options = _options(
            splits=_splits(split or ()) if split or split_list else standard_splits(),
            crop=_crop(crop),
            stretch=stretch,
            size=size or None,
            channels=channels or None,
            on_bad=on_bad,
            duplicates=duplicates,
            min_images=min_images,
            max_images=max_images or None,
            per_class=per_class or None,
            unlabelled=unlabelled,
        )
        if download:
            _download(source)
        with _leaving_no_empty(dest):
            _stage(source, dest, name, options, _Lists(exclude, identities, split_list or ()))
    except (ValueError, OSError) as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None


@contextmanager
def _leaving_no_empty(dest: str) -> Iterator[None]:
    """Remove the folders of DEST that were not there and are still empty after a refusal."""
    absent = [folder for folder in (Path(dest), *Path(dest).parents) if not os.path.exists(folder)]
    try:
        yield
    except (ValueError, OSError):
        for folder in absent:
            with suppress(OSError, ValueError):
                folder.rmdir()
        raise


def _options(**values: object) -> Options:
    try:
        return Options.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        flag = "--" + ".".join(map(str, first["loc"])).replace("_", "-").replace("splits", "split")
        raise Refused(flag, first["input"], f"is refused: {first['msg']}", "see --help") from None


def _splits(texts: Iterable[str]) -> dict[str, SplitRule]:
    rules = {}
    for text in texts:
        match = SPLIT.fullmatch(text)
        if match is None:
            rule = "must read NAME=TRAIN,AUXILIARY,EVALUATION@SEED"
            raise Refused("--split", text, rule, "write default=0.5,0.25,0.25@0")
        if match["name"] in rules:
            raise Refused("--split", text, "gives a split of that name a second time", "drop one")
        train, auxiliary, evaluation = (float(part) for part in match["fractions"].split(","))
        rules[match["name"]] = SplitRule(
            fractions=(train, auxiliary, evaluation), seed=int(match["seed"] or 0)
        )
    return rules


class _Lists:
    """The lists of classes and images that a source is narrowed to, read before the source is."""

    def __init__(self, exclude: str, identities: str, splits: Iterable[str]) -> None:
        self._excluded = read_names(Path(exclude)) if exclude else None
        self._identities = read_identities(Path(identities)) if identities else None
        self._splits: dict[str, SplitFiles] = {}
        for text in splits:
            match = SPLIT_LIST.fullmatch(text)
            if match is None:
                rule = "must read NAME=TRAIN,AUXILIARY,EVALUATION, three files of which some may be empty"
                raise Refused("--split-list", text, rule, "write default=trainset.txt,,testset.txt")
            if match["name"] in self._splits:
                raise Refused("--split-list", text, "gives a split of that name a second time", "drop one")
            self._splits[match["name"]] = read_split((match[2], match[3], match[4]))

    def narrow(self, source: Source, options: Options) -> tuple[Source, Options]:
        """Return the source with what the lists leave of it, and the options with their records."""
        for split in self._splits.keys() & options.splits.keys():
            raise Refused("--split-list", split, "is a split that --split draws", "drop one of them")
        if self._splits:
            source, splits = with_lists(source, self._splits)
            options = options.but(split_lists=splits)
        if self._excluded is not None:
            source, excluded = without(source, self._excluded)
            options = options.but(exclude=excluded)
        if self._splits:
            source = only_listed(source, tuple(self._splits))
        if self._identities is not None:
            source, kept = only(source, self._identities)
            options = options.but(identities=kept)
        return source, options


def _crop(text: str) -> tuple[int, ...] | str | None:
    if text in ("", "centre"):
        return text or None
    if share := SHARE_OF_SIDE.fullmatch(text):
        part, whole = (int(number) for number in share.groups())
        if part > whole:
            raise Refused("--crop", text, "must be a share of each side", "write for instance 88/128")
        return text
    if CROP.fullmatch(text) is None:
        rule = "must read LEFT,TOP,SIDE or centre or PART/WHOLE"
        raise Refused("--crop", text, rule, "write for instance 35,70,108")
    return tuple(int(number) for number in text.split(","))


def _download(text: str) -> None:
    """Download a set with torchvision to the folder that `open_source` reads."""
    kind, _, folder = text.partition(":")
    name = DOWNLOADS.get("emnist" if kind.startswith("emnist-") else kind)
    if name is None or not folder:
        rule = f"fetches {', '.join(f'{one}:DIR' for one in DOWNLOADS)}, but SOURCE={text}"
        raise Refused("--download", NO_VALUE, rule, "correct SOURCE or drop --download")
    from torchvision import datasets  # here, because the import takes 4 s

    variant = {"split": "balanced"} if name == "EMNIST" else {}  # one archive holds all
    try:
        getattr(datasets, name)(folder, download=True, **variant)
    except Exception as error:  # torchvision's downloaders raise many types
        reason = sentences(str(error))
        rule = f"could not be downloaded ({type(error).__name__}: {reason})"
        way_out = "try again, or put the files into that folder as torchvision does"
        raise Refused("SOURCE", text, rule, way_out) from None


def _stage(text: str, dest: str, name: str, options: Options, lists: _Lists) -> None:
    blobs = open_blobs(dest)
    source = open_source(text, is_labelled=not options.unlabelled)
    name = name or source.name
    _check_name(name, source)
    check(blobs, option="DEST")
    source, options = lists.narrow(source, settled(source, options))
    with _Bar() as bar:
        manifest, is_new = publish(converted(source, options), options, blobs, name, bar.images, bar.file)
    _print(manifest, is_new, f"{blobs.uri.rstrip('/')}/{name}")
    warn_of_source(text)
    warn_of_destination(dest)
    if is_new and bar.num_present:
        typer.echo(
            f"files: {bar.num_sent} sent, {bar.num_present} were there from a staging that ended early"
        )


def _check_name(name: str, source: Source) -> None:
    if name in BUILTINS and source.kind != name:
        raise Refused("--name", name, "belongs to the built-in set", "choose another --name")


class _Bar:
    """Progress bar of images read and files sent, on terminals only."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bars = Progress(console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bars.add_task("staging")
        self.num_sent = self.num_present = self._bytes = 0

    def __enter__(self) -> "_Bar":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def images(self, indices: Iterable[int]) -> Iterable[int]:
        """Yield the indices, advancing the bar."""
        return self._bars.track(indices, task_id=self._task)

    def file(self, file: File, is_missing: bool) -> None:
        """Count a file that was sent, or was present."""
        self.num_sent += is_missing
        self.num_present += not is_missing
        self._bytes += file.size if is_missing else 0
        present = f", {self.num_present} were there" if self.num_present else ""
        description = f"staging, {self.num_sent} files ({self._bytes / 2**20:.0f} MiB) sent{present}"
        self._bars.update(self._task, description=description)


def _print(manifest: Manifest, is_new: bool, where: str) -> None:
    height, width, channels = manifest.image_shape
    num_classes = len(manifest.class_names)
    classes = "1 class without labels" if manifest.options.unlabelled else f"{num_classes} classes"
    typer.echo(f"{'staged' if is_new else 'already staged, nothing written:'} {where}")
    typer.echo(
        f"images: {manifest.seen} seen, {manifest.kept} kept, {manifest.seen - manifest.kept} dropped; "
        f"{classes}, {height}x{width}x{channels}"
    )
    for reason, count in manifest.dropped.items():
        typer.echo(f"dropped: {count} {reason}")
    if (listed := manifest.options.exclude) is not None:
        typer.echo(f"excluded: {listed.found} of {listed.names} listed names, list sha256 {listed.sha256}")
    if manifest.options.identities is not None:
        typer.echo(
            f"identities: classes in the order of the list, sha256 {manifest.options.identities.sha256}"
        )
    for split, record in manifest.options.split_lists.items():
        if record.labels and manifest.options.identities is None:
            whole = record.is_numbered and record.labels == num_classes
            numbers = ", which are the class ids" if whole else ""
            typer.echo(f"classes: in the order of the {record.labels} labels of split {split}{numbers}")
    for split, entry in manifest.splits.items():
        train, auxiliary, evaluation = entry.counts
        typer.echo(f"split {split}: {train} train, {auxiliary} auxiliary, {evaluation} evaluation")
    typer.echo(f"digest: {sha256(dump(manifest))}")


if __name__ == "__main__":
    app()

"""Sources by name: public sets on disk, image folders, .zip files of them, arrays and the built-in sets."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets.builtin import BUILTINS
from orchestrator.datasets.manifest import Options, is_share
from orchestrator.datasets.sources import torchvision_raw
from orchestrator.datasets.sources.arrays import npz
from orchestrator.datasets.sources.base import BadImage, Source
from orchestrator.datasets.sources.celeba import celeba
from orchestrator.datasets.sources.facescrub import facescrub
from orchestrator.datasets.sources.folders import image_folder, image_zip

READERS: dict[str, Callable[[Path], Source]] = {
    "mnist": torchvision_raw.mnist,
    "fashion-mnist": torchvision_raw.fashion_mnist,
    "emnist": torchvision_raw.emnist,
    **{
        f"emnist-{variant}": partial(torchvision_raw.emnist, variant=variant)
        for variant in torchvision_raw.EMNIST_CLASSES
    },
    "cifar10": torchvision_raw.cifar10,
    "facescrub": facescrub,
    "celeba": celeba,
}
"""`NAME` of NAME:DIR -> reader of that folder."""


def open_source(text: str, *, is_labelled: bool = True) -> Source:
    """Return the source named by `NAME:DIR`, a folder, a .zip, a .npz or a built-in name.

    Without `is_labelled` all images are in one class, and folders and arrays need none. Raise `Refused` if
    there is no such source, or if its reader refuses the files.
    """
    source = _open(text, is_labelled=is_labelled)
    return source if is_labelled else source.unlabelled()


def _open(text: str, *, is_labelled: bool) -> Source:
    kind, colon, folder = text.partition(":")
    if text in BUILTINS:
        return BUILTINS[text]()
    if kind in READERS:
        if not colon or not os.path.isdir(folder):
            rule = f"needs an existing folder after {kind}:, such as {kind}:/data"
            raise Refused("SOURCE", text, rule, "correct the path")
        return READERS[kind](Path(folder))
    path = Path(text)
    if os.path.isdir(text):  # False, not an error, for a name that is too long
        return image_folder(path, is_labelled=is_labelled)
    if os.path.isfile(text) and path.suffix.lower() in (".zip", ".npz"):
        read = image_zip if path.suffix.lower() == ".zip" else npz
        return read(path, is_labelled=is_labelled)
    what = (
        "is neither a folder, a .zip nor a .npz"
        if os.path.exists(text)
        else "is unknown and no such path exists"
    )
    readers = ", ".join(f"{reader}:DIR" for reader in READERS)
    known = f"known are {', '.join(sorted(BUILTINS))}, {readers}, an image folder, a .zip of one and a .npz"
    raise Refused("SOURCE", text, what, known)


def settled(source: Source, options: Options) -> Options:
    """Return the options with the source's default crop and stretching unless either was chosen.

    A share of each side leaves an image in its form, so it keeps the source's stretching.
    """
    if is_share(options.crop) and source.stretch:
        return options.but(stretch=True)
    if options.crop is not None or options.stretch:
        return options
    return options.but(crop=source.crop, stretch=source.stretch)


def converted(source: Source, options: Options) -> Source:
    """Return the source with each image cropped, checked to be square, resized and recoloured when read.

    Reading raises `BadImage` if the crop leaves the image, or if the result is not square and not stretched.
    """

    from orchestrator.datasets.images import convert  # here: it imports torch, which takes seconds

    def change(image: np.ndarray, name: str) -> np.ndarray:
        cut = _cropped(image, options, name)
        _check_square(cut, options, name)
        return convert(cut, options.size, options.channels)

    return source.converted(change)


def _cropped(image: np.ndarray, options: Options, name: str) -> np.ndarray:
    height, width = image.shape[:2]
    if options.crop is None:
        return image
    if isinstance(options.crop, str):
        tall, wide = _centred(height, width, options.crop)
        left, top = (width - wide) // 2, (height - tall) // 2
        return image[top : top + tall, left : left + wide]
    left, top, side = options.crop
    if left + side > width or top + side > height:
        rule = f"is {height}x{width}, so the crop LEFT,TOP,SIDE={left},{top},{side} leaves it"
        raise BadImage(name, NO_VALUE, rule, "pass another --crop or --on-bad skip", "outside the crop")
    return image[top : top + side, left : left + side]


def _centred(height: int, width: int, crop: str) -> tuple[int, int]:
    """Return height and width of the centre that `Options.crop` names, rounded down, in pixels."""
    if not is_share(crop):
        return min(height, width), min(height, width)
    part, whole = map(int, crop.split("/"))
    return max(1, height * part // whole), max(1, width * part // whole)


def _check_square(image: np.ndarray, options: Options, name: str) -> None:
    height, width = image.shape[:2]
    if height != width and not options.stretch:
        rule = f"is {height}x{width}, networks take squares"
        way_out = "pass --crop LEFT,TOP,SIDE, --crop centre or --stretch"
        raise BadImage(name, NO_VALUE, rule, way_out, "not square")

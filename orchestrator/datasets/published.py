"""Published sizes of public data sets, by the names under which the shipped studies read them.

A plan needs no data: where a set is not staged its published size stands in, with images spread evenly over
its classes. Keys of stages on such a set are of this plan alone. No torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from orchestrator.config.base import digest
from orchestrator.datasets.catalog import Description, Labels
from orchestrator.datasets.manifest import standard_splits

Splits = Mapping[str, tuple[float, float, float]]

STANDARD: Splits = MappingProxyType({name: rule.fractions for name, rule in standard_splits().items()})
"""Split -> shares of train, auxiliary and evaluation, as `jobs.stage_data` draws them where none is named."""

PUBLIC: Splits = MappingProxyType({"default": (1.0, 0.0, 0.0)})
NINETY: Splits = MappingProxyType({"ninety": (0.9, 0.0, 0.1)})
NOT_STAGED = "not staged"
"""Source of a description that stands in."""


@dataclass(frozen=True)
class Published:
    """A public set as its authors describe it and as the docs stage it."""

    images: int
    classes: int
    """1 of a set without identities."""

    source: str
    """Who says how many these are."""

    command: str
    """What stages it, behind `python -m jobs.stage_data`."""

    side: int = 64
    channels: int = 1
    splits: Splits = field(default_factory=lambda: STANDARD)
    is_labelled: bool = True

    @property
    def size(self) -> str:
        """Images and classes in words."""
        return f"{self.images:,} images" + (f" of {self.classes:,} classes" if self.is_labelled else "")

    def description(self, name: str) -> Description:
        """Return what stands in for the manifest's; the names of its classes are those of no other set."""
        return Description(
            name=name,
            digest=digest({"published": name, "images": self.images, "classes": self.classes}),
            source=NOT_STAGED,
            num_images=self.images,
            num_classes=self.classes,
            image_shape=(self.side, self.side, self.channels),
            splits=tuple(sorted(self.splits)),
            class_names=tuple(f"{name}/{place}" for place in range(self.classes)),
            is_labelled=self.is_labelled,
        )

    def labels(self) -> Labels:
        """Return labels and splits of images in equal numbers for each class."""
        labels = np.arange(self.images, dtype=np.int64) % self.classes
        members = -(-self.images // self.classes)
        place = (np.arange(self.images) // self.classes + 0.5) / members
        splits = {
            name: np.searchsorted(np.cumsum(shares)[:2], place, side="right").astype(np.uint8)
            for name, shares in self.splits.items()
        }
        return Labels(labels, splits)


MNIST = Published(70_000, 10, "LeCun et al. 1998", "mnist:DIR DATASETS/ --size 32", side=32)
CIFAR10 = Published(60_000, 10, "Krizhevsky 2009", "cifar10:DIR DATASETS/ --channels 1", side=32)
FACESCRUB = Published(
    106_863,
    530,
    "Ng and Winkler 2014; links die, fewer can be had",
    "facescrub:DIR DATASETS/ --size 64 --channels 1 --on-bad skip",
)
CELEBA = Published(
    202_599,
    10_177,
    "Liu et al. 2015",
    "celeba:DIR DATASETS/ --size 64 --channels 1 --exclude LIST.txt --split default=1,0,0",
    splits=PUBLIC,
)
CELEBA_PRIVATE = Published(
    30_027,
    1_000,
    "the lists of Chen et al. 2021",
    "celeba:DIR DATASETS/ --name celeba-private --size 64 --channels 3 --crop 35,55,108 --exclude OTHERS.txt "
    "--split ninety=0.9,0,0.1@42",
    channels=3,
    splits=NINETY,
)
LFW_PRIVATE = Published(
    2_155,
    62,
    "Huang et al. 2007: people with 20 pictures or more, 60 of each at most",
    "lfw64.zip DATASETS/ --name lfw-private --min-images 20 --per-class 60 --channels 1",
)
LFW_PUBLIC = Published(
    10_210,
    5_687,
    "Huang et al. 2007: people with fewer than 20 pictures",
    "lfw64.zip DATASETS/ --name lfw-public --max-images 19 --channels 1 --split default=1,0,0",
    splits=PUBLIC,
)


def _at(about: Published, command: str, **changes: object) -> Published:
    """Return a set that is staged by another command."""
    return replace(about, command=command, **changes)  # type: ignore[arg-type]


_NINETY = "--crop centre --split ninety=0.9,0,0.1@42"

PUBLISHED: Mapping[str, Published] = {
    "mnist": MNIST,
    "mnist-small": _at(
        MNIST, "mnist:DIR DATASETS/ --name mnist-small --size 32 --per-class 1000", images=10_000
    ),
    "mnist-equal": _at(
        MNIST,
        "mnist:DIR DATASETS/ --name mnist-equal --size 32 --per-class 1000 --split equal=0.3,0.5,0.2",
        images=10_000,
        splits={"equal": (0.3, 0.5, 0.2)},
    ),
    "cifar10": CIFAR10,
    "cifar10-rgb": _at(CIFAR10, "cifar10.npz DATASETS/ --name cifar10-rgb --channels 3", channels=3),
    "facescrub": FACESCRUB,
    "facescrub-64": _at(
        FACESCRUB,
        "facescrub:DIR DATASETS/ --name facescrub-64 --size 64 --channels 3 --crop 54/64 --on-bad skip",
        channels=3,
    ),
    "facescrub-224": _at(
        FACESCRUB,
        "facescrub:DIR DATASETS/ --name facescrub-224 --size 224 --channels 3 --on-bad skip "
        "--split ninety=0.9,0,0.1@42",
        side=224,
        channels=3,
        splits=NINETY,
    ),
    "celeba": CELEBA,
    "celeba-private": CELEBA_PRIVATE,
    "celeba-private-224": _at(
        CELEBA_PRIVATE,
        "celeba:DIR DATASETS/ --name celeba-private-224 --size 224 --channels 3 --crop 35,55,108 "
        "--exclude OTHERS.txt --split ninety=0.9,0,0.1@42",
        side=224,
    ),
    "celeba-public": _at(
        CELEBA,
        "celeba:DIR DATASETS/ --name celeba-public --size 64 --channels 3 --crop 35,55,108 "
        "--exclude PRIVATE.txt --split default=1,0,0",
        images=172_572,
        classes=9_177,
        channels=3,
        source="Liu et al. 2015, without the 1,000 private people",
    ),
    "ffhq": Published(
        70_000,
        1,
        "Karras et al. 2019",
        "FFHQ/ DATASETS/ --name ffhq --size 64 --channels 3 --crop 88/128 --split default=1,0,0 --unlabelled",
        channels=3,
        splits=PUBLIC,
        is_labelled=False,
    ),
    "vggface2": Published(
        3_311_286,
        9_131,
        "Cao et al. 2018",
        f"VGGFACE2/ DATASETS/ --name vggface2 --size 224 --channels 3 {_NINETY}",
        side=224,
        channels=3,
        splits=NINETY,
    ),
    "stanford-cars": Published(
        16_185,
        196,
        "Krause et al. 2013",
        f"CARS/ DATASETS/ --name stanford-cars --size 224 --channels 3 {_NINETY}",
        side=224,
        channels=3,
        splits=NINETY,
    ),
    "stanford-dogs": Published(
        20_580,
        120,
        "Khosla et al. 2011",
        f"DOGS/ DATASETS/ --name stanford-dogs --size 224 --channels 3 {_NINETY}",
        side=224,
        channels=3,
        splits=NINETY,
    ),
    "lfw-private": LFW_PRIVATE,
    "lfw-private-32": _at(
        LFW_PRIVATE,
        "lfw64.zip DATASETS/ --name lfw-private-32 --min-images 20 --per-class 60 --channels 1 --size 32",
        side=32,
    ),
    "lfw-private-rgb": _at(
        LFW_PRIVATE,
        "lfw64.zip DATASETS/ --name lfw-private-rgb --min-images 20 --per-class 60 --channels 3",
        channels=3,
    ),
    "lfw-public": LFW_PUBLIC,
    "lfw-public-32": _at(
        LFW_PUBLIC,
        "lfw64.zip DATASETS/ --name lfw-public-32 --max-images 19 --channels 1 --size 32 "
        "--split default=1,0,0",
        side=32,
    ),
    "lfw-public-rgb": _at(
        LFW_PUBLIC,
        "lfw64.zip DATASETS/ --name lfw-public-rgb --max-images 19 --channels 3 --split default=1,0,0",
        channels=3,
    ),
    "celeba-grey": Published(
        4_773,
        240,
        "240 people of Liu et al. 2015",
        "celeba64.zip DATASETS/ --name celeba-grey --channels 1 --split default=1,0,0",
    ),
    "celeba-private-32": Published(
        4_773,
        240,
        "240 people of Liu et al. 2015",
        "celeba64.zip DATASETS/ --name celeba-private-32 --min-images 15 --channels 1 --size 32",
        side=32,
    ),
    "cfp-grey": Published(
        4_972,
        500,
        "Sengupta et al. 2016, without the 205 people of LFW",
        "cfp64.zip DATASETS/ --name cfp-grey --channels 1 --exclude CFP.txt --split default=1,0,0",
    ),
}
"""Name of a staged set -> its published size."""

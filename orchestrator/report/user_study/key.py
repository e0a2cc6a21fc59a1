"""Key of a user study's page: which setting stands where. Raters never see it.

A page and its key have one name, the start of a digest, which gives nothing away.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from orchestrator.config.base import Refused, Seed, Spec
from orchestrator.datasets.sources.files import read_regular

Side = Literal["left", "right"]
Page = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]

MAX_BYTES = 16 * 2**20


class Pair(Spec):
    """One question: a private image and the reconstructions of both settings."""

    person: int
    """The target's class of the private image; with faces, the person."""

    first: Side
    """Where the first setting's reconstruction stands."""

    trials: tuple[str, str]
    """Trial of each setting."""

    image: int
    """Position of the private image among those that the trials keep."""


class Key(Spec):
    """What a page's raters must not see."""

    page: Page
    """Name of the page."""

    study: str
    """Study whose images it shows."""

    sweep: str = ""
    """Key of the sweep whose images it shows; empty in keys of earlier versions."""

    part: str
    """train, test or class."""

    seed: Seed
    """Of the choice and the order of pairs and sides."""

    settings: tuple[str, str]
    """The two settings in words."""

    pairs: tuple[Pair, ...] = Field(min_length=1)
    """Pair i of the page, from 1, is `pairs[i - 1]`."""


def page_file(page: str) -> str:
    """Return the file name of a page."""
    return f"user-study-{page}.html"


def key_file(page: str) -> str:
    """Return the file name of a page's key."""
    return f"user-study-{page}-key.json"


def files_of_sweep(folder: Path, sweep: str) -> list[Path]:
    """Return the files of a folder's user studies that show a sweep's images: pages, keys, tables of answers.

    A key that cannot be read, or that names no sweep, stays with its page.
    """
    found: list[Path] = []
    for path in sorted(folder.glob(key_file("*"))):
        page = path.name.removeprefix("user-study-").removesuffix("-key.json")
        try:
            key = read_key(folder, page)
        except Refused:
            continue
        if key.sweep == sweep:
            found += sorted(folder.glob(f"user-study-{page}[.-]*"))
    return found


def read_key(folder: Path, page: str) -> Key:
    """Return the key of a page; raise `Refused` if the folder has none that can be read."""
    path = folder / key_file(page)
    if not re.fullmatch(r"[0-9a-f]{12}", page):
        raise Refused("--answers", page, "is no name of a page", "give the file that the page downloads")
    try:
        key = Key.model_validate_json(read_regular(path, MAX_BYTES)[: MAX_BYTES + 1])
    except OSError as error:
        rule = f"of page {page} cannot be read ({error.strerror})"
        raise Refused("key", path, rule, "put it back beside the report, or export again") from None
    except ValidationError:
        way_out = "restore it, or export again with the same options"
        raise Refused("key", path, f"is not the key of page {page}", way_out) from None
    if key.page != page:
        raise Refused("key", path, f"is the key of page {key.page}", "restore the one of this name")
    return key

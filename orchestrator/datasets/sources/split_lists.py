"""Split lists: splits of a set by lists of its images' names, such as `trainset.txt` of GMI's code.

A line is an image's name, or its name and a number, `FILE LABEL`. A name is the path below the source, the
bare file name where no other image has it, either of them without its suffix or with that of another picture
format, or an image's place in an array. Labels are compared as a renaming: images of one label are of one
class, images of one class have one label. The classes of the set then come in the order of the labels.

Images that no list names are left out of the set: every image of a set is in a part.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets.manifest import ListedSplit
from orchestrator.datasets.sources.base import UNLABELLED, Source
from orchestrator.datasets.sources.files import MAX_LIST_BYTES
from orchestrator.datasets.sources.layouts import SUFFIXES
from orchestrator.datasets.splits import PARTS
from orchestrator.store.blobs import sha256

OPTION = "--split-list"
UNLISTED = 255  # in the codes of a split: the image is in none of its lists
MAX_DIGITS = 9  # of a label
NOT_LISTED = "not on a split list"
RENAMING = "correct the labels, which must rename the classes one to one, or remove them from the lists"


@dataclass(frozen=True)
class SplitFiles:
    """The lines of the files of one split, and the files' checksums."""

    paths: tuple[str, str, str]  # of train, auxiliary and evaluation; "": an empty part
    lines: tuple[tuple[str, ...], ...]
    sha256: tuple[str | None, str | None, str | None]


class _Entry(NamedTuple):
    """One line of a list."""

    part: int  # position in PARTS
    image: int  # its position in the source
    label: int | None


def read_split(paths: tuple[str, str, str]) -> SplitFiles:
    """Return the lines of the files for train, auxiliary and evaluation, "" for none, blank ones left out.

    Raise `Refused` if a file is too long or not UTF-8 text, or if no file has a line.
    """
    contents = [_content(path) if path else None for path in paths]
    train, auxiliary, evaluation = (None if data is None else sha256(data) for data in contents)
    texts = [(data or b"").decode("utf-8-sig").splitlines() for data in contents]
    lines = tuple(tuple(line.strip() for line in text if line.strip()) for text in texts)
    if not any(lines):
        raise Refused(OPTION, ",".join(paths), "lists no image", "name a file with one image a line")
    return SplitFiles(paths, lines, (train, auxiliary, evaluation))


def with_lists(source: Source, splits: Mapping[str, SplitFiles]) -> tuple[Source, dict[str, ListedSplit]]:
    """Return the source with splits by lists, and the manifest's record of each.

    Images that a split does not name have the code `UNLISTED`; `only_listed` leaves them out. Where lines
    have labels, these classes come first, in the order of the labels.
    Raise `Refused` if a name is that of no image or of several, if an image is named twice or in two parts,
    if labels are no renaming of the classes, or if splits order the classes differently.
    """
    names = _Names(source)
    entries = {split: _resolved(files, names) for split, files in splits.items()}
    codes: dict[str, np.ndarray] = {}
    orders: dict[str, dict[int, int]] = {}
    for split, found in entries.items():
        codes[split] = _codes(found, splits[split], source)
        if any(entry.label is not None for entry in found) and source.class_names != (UNLABELLED,):
            orders[split] = _classes_by_label(found, splits[split], source)
    if len({tuple(order.values()) for order in orders.values()}) > 1:
        rule = f"{' and '.join(orders)} number the classes differently"
        raise Refused(OPTION, NO_VALUE, rule, "stage one of them under another --name")
    source = replace(source, splits={**source.splits, **codes})
    first = next(iter(orders.values()), {}).values()
    classes = dict.fromkeys([*first, *range(len(source.class_names))])
    ordered = source.restricted(np.arange(len(source.labels)), list(classes), NOT_LISTED)
    return ordered, {split: _record(files, orders.get(split, {})) for split, files in splits.items()}


def only_listed(source: Source, splits: Iterable[str]) -> Source:
    """Return the source without the images, and the classes, that no list names.

    Raise `Refused` if one split names images of which another says nothing.
    """
    named = {split: source.splits[split] != UNLISTED for split in splits}
    is_any = np.logical_or.reduce(list(named.values()))
    for split, is_named in named.items():
        missing = np.flatnonzero(is_any & ~is_named)
        if missing.size:
            other = next(one for one, has in named.items() if has[missing[0]])
            name = source.label_of(int(missing[0]))
            rule = f"has no part for {name}, which {other} names ({missing.size} images)"
            way_out = "list the same images in both, or stage them under two --name"
            raise Refused(OPTION, split, rule, way_out)
    kept = np.flatnonzero(is_any)
    classes = sorted(set(source.labels[kept].tolist()))
    return source.restricted(kept, classes, NOT_LISTED)


class _Names:
    """Finds images by what lists call them."""

    def __init__(self, source: Source) -> None:
        self._by_path: dict[str, list[int]] = {}
        self._by_file: dict[str, list[int]] = {}
        for index in range(len(source.labels)):
            path = source.label_of(index).removeprefix("image ")  # of arrays, whose images are numbered
            file = path.rpartition("/")[2]
            for names, name in ((self._by_path, path), (self._by_file, file)):
                for form in dict.fromkeys((name, _stem(name))):
                    names.setdefault(form, []).append(index)

    def find(self, name: str) -> list[int]:
        """Return the positions of the images that a list may mean by a name."""
        name = name.replace("\\", "/").removeprefix("./").removeprefix("image ")
        if "/" not in name:
            return self._in(self._by_path, name) or self._in(self._by_file, name)
        words = name.split("/")  # the path may begin with folders that hold the whole set
        tails = ("/".join(words[start:]) for start in range(len(words) - 1))
        return next(filter(None, (self._in(self._by_path, tail) for tail in tails)), [])

    def _in(self, names: Mapping[str, list[int]], name: str) -> list[int]:
        return names.get(name) or names.get(_stem(name), [])


def _stem(name: str) -> str:
    """Return a name without the suffix of a picture format."""
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f"{dot}{suffix}".lower() in SUFFIXES else name


def _content(path: str) -> bytes:
    try:
        with Path(path).open("rb") as handle:
            data = handle.read(MAX_LIST_BYTES + 1)
        if len(data) <= MAX_LIST_BYTES:
            data.decode("utf-8-sig")
            return data
        rule = f"has more than {MAX_LIST_BYTES} bytes"
    except (OSError, ValueError) as error:
        rule = f"cannot be read as text ({error})"
    raise Refused(OPTION, path, rule, "give a UTF-8 file, one image a line")


def _resolved(files: SplitFiles, names: _Names) -> list[_Entry]:
    """Return what the lines mean; refuse names of no image, or of several."""
    entries: list[_Entry] = []
    unknown: list[tuple[str, str, int]] = []
    several: list[tuple[str, str, int]] = []
    for part, lines in enumerate(files.lines):
        for line in lines:
            found, name, label = _parsed(line, names)
            if len(found) == 1:
                entries.append(_Entry(part, found[0], label))
            else:
                (several if found else unknown).append((files.paths[part], name, len(found)))
    total = sum(map(len, files.lines))
    for path, name, _ in unknown[:1]:
        rule = f"names {name!r}, which no image has ({len(unknown)} of {total} names of the split)"
        way_out = (
            "correct the list, whose lines are FILE or FILE LABEL, or give the SOURCE that it was made for"
        )
        raise Refused(OPTION, path, rule, way_out)
    for path, name, count in several[:1]:
        rule = f"names {name!r}, which {count} images have ({len(several)} of {total} names of the split)"
        raise Refused(OPTION, path, rule, "write each with its folder, as CLASS/FILE")
    return entries


def _parsed(line: str, names: _Names) -> tuple[list[int], str, int | None]:
    """Return the images that a line may mean, their name in it and the label, if it has one."""
    found = names.find(line)
    name, *label = line.rsplit(None, 1)
    if found or not label or not label[0].isdecimal() or len(label[0]) > MAX_DIGITS:
        return found, line, None
    return names.find(name), name, int(label[0])


def _codes(entries: list[_Entry], files: SplitFiles, source: Source) -> np.ndarray:
    """Return the part of each image, (N,) uint8, `UNLISTED` for the others; refuse those named again."""
    codes = np.full(len(source.labels), UNLISTED, dtype=np.uint8)
    twice, divided = [], []
    for entry in entries:
        if codes[entry.image] == entry.part:
            twice.append(entry)
        elif codes[entry.image] != UNLISTED:
            divided.append((entry, int(codes[entry.image])))
        codes[entry.image] = entry.part
    for again in twice[:1]:
        rule = (
            f"names {source.label_of(again.image)} twice ({len(twice)} of {len(entries)} names are repeated)"
        )
        raise Refused(OPTION, files.paths[again.part], rule, "remove the second")
    for first, before in divided[:1]:
        parts = f"is in {PARTS[before]} and in {PARTS[first.part]}"
        rule = f"has images in two parts: {source.label_of(first.image)} {parts} ({len(divided)} images)"
        raise Refused(OPTION, ",".join(files.paths), rule, "remove each from all lists but one")
    return codes


def _classes_by_label(entries: list[_Entry], files: SplitFiles, source: Source) -> dict[int, int]:
    """Return label -> class of the source, in the order of the labels; refuse all but a renaming."""
    where = ",".join(files.paths)
    bare = [entry for entry in entries if entry.label is None]
    if bare:
        name = source.label_of(bare[0].image)
        rule = f"has no label for {name} ({len(bare)} of {len(entries)} lines have none)"
        raise Refused(OPTION, where, rule, "write FILE LABEL on every line, or on none")
    pairs = sorted({(entry.label or 0, int(source.labels[entry.image])) for entry in entries})
    labels, classes = Counter(label for label, _ in pairs), Counter(one for _, one in pairs)
    mixed = [label for label, count in labels.items() if count > 1]
    for label in mixed[:1]:
        first, second, *_ = (source.class_names[one] for given, one in pairs if given == label)
        rule = f"gives label {label} to {first} and to {second} ({len(mixed)} of {len(labels)} labels)"
        raise Refused(OPTION, where, rule, RENAMING)
    divided = [one for one, count in classes.items() if count > 1]
    for one in divided[:1]:
        numbers = " and ".join(str(label) for label, of in pairs if of == one)
        name, count = source.class_names[one], f"{len(divided)} of {len(classes)} classes"
        raise Refused(OPTION, where, f"gives {name} the labels {numbers} ({count})", RENAMING)
    return dict(pairs)


def _record(files: SplitFiles, order: Mapping[int, int]) -> ListedSplit:
    train, auxiliary, evaluation = map(len, files.lines)
    return ListedSplit(
        sha256=files.sha256,
        names=(train, auxiliary, evaluation),
        labels=len(order),
        is_numbered=bool(order) and set(order) == set(range(len(order))),
    )

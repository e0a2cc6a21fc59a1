"""Staging: a source written as uint8 shards, labels and split files, and the manifest last.

One shard is about 64 MiB: reading whole shards is the fastest way from any store to memory, one object per
image the slowest. Files are named by their content, so a restarted staging sends only the missing ones.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets.filtering import Choice, Examined, by_files, choose, renumbered
from orchestrator.datasets.manifest import NAME, File, Manifest, Options, Split, dump, parse
from orchestrator.datasets.reading import Progress, Reader
from orchestrator.datasets.sources.base import Source, check_labels
from orchestrator.datasets.splits import PARTS, make_split, num_parts
from orchestrator.store.blobs import Blobs, sha256

SHARD_BYTES = 64 * 2**20
NAMES_KEPT = 100  # dropped images listed by name, for each reason

OnFile = Callable[[File, bool], None]
"""Called with each file once it is in the store, and whether it was sent."""


class _Selected(NamedTuple):
    """What is written of a source."""

    choice: Choice
    labels: np.ndarray  # (n,) int64, of the images kept
    class_names: tuple[str, ...]
    codes: Mapping[str, np.ndarray]  # split that is drawn -> (n,) uint8


@dataclass(frozen=True)
class _Folder:
    """Writer of the files of one set."""

    blobs: Blobs
    name: str
    on_file: OnFile
    present: Mapping[str, int]  # name in the store -> bytes, before the staging

    def write(self, stem: str, array: np.ndarray) -> File:
        """Store the array unless a file of its name and size is present; reading verifies its content."""
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        data = buffer.getvalue()
        digest = sha256(data)
        file = File(name=f"{stem}-{digest[:12]}.npy", size=len(data), sha256=digest)
        where = f"{self.name}/{file.name}"
        is_missing = self.present.get(where) != file.size
        if is_missing:
            self.blobs.put(where, data)
        self.on_file(file, is_missing)
        return file


def publish(
    source: Source,
    options: Options,
    blobs: Blobs,
    name: str,
    progress: Progress = iter,
    on_file: OnFile = lambda file, is_missing: None,
) -> tuple[Manifest, bool]:
    """Stage `source` under `name`; return its manifest and whether anything was written.

    Raise `Refused` if the name is malformed or taken by another set, if labels or images do not fit, and
    `BadImage` if an image cannot be used and `options.on_bad` is `error`.
    """
    if not NAME.fullmatch(name):
        rule = "must be lower-case letters, digits, dots, dashes and underscores, at most 64"
        raise Refused("--name", name, rule, "choose another --name")
    staged = blobs.get(f"{name}/manifest.json")
    if staged is not None:
        return _same(parse(staged, f"{name}/manifest.json"), source, options, blobs), False
    _check_early(source, options)
    reader = Reader(source, options)
    selected = _select(reader.examine(progress), source, options)
    reader.check(selected.choice.kept, name)
    present = {entry.name: entry.size for entry in blobs.entries(f"{name}/")}
    manifest = _write(_Folder(blobs, name, on_file, present), reader, selected, source, options)
    if not blobs.put(f"{name}/manifest.json", dump(manifest), overwrite=False):
        other = parse(blobs.get(f"{name}/manifest.json") or b"", f"{name}/manifest.json")
        return _same(other, source, options, blobs), False
    return manifest, True


def _same(staged: Manifest, source: Source, options: Options, blobs: Blobs) -> Manifest:
    if (staged.source, staged.source_sha256, staged.options) == (source.kind, source.fingerprint, options):
        return staged
    rule = f"already holds another set ({staged.kept} images from {staged.source}, or other options)"
    way_out = "choose another --name or remove that folder"
    raise Refused(f"{blobs.uri}/{staged.name}", NO_VALUE, rule, way_out)


def _write(
    folder: _Folder, reader: Reader, selected: _Selected, source: Source, options: Options
) -> Manifest:
    dropped = _dropped(source, selected.choice)
    shape, shards = _write_images(map(reader.image, selected.choice.kept.tolist()), folder)
    return Manifest(
        name=folder.name,
        source=source.kind,
        source_sha256=source.fingerprint,
        options=options,
        seen=len(source.labels) + sum(map(len, source.left_out.values())),
        kept=len(selected.labels),
        dropped=dict(Counter(reason for reason, _ in dropped)),
        dropped_names=_first_names(dropped),
        class_names=selected.class_names,
        image_shape=shape,
        images=shards,
        labels=folder.write("labels", selected.labels),
        splits=_write_splits(source, options, selected, folder),
    )


def _check_early(source: Source, options: Options) -> None:
    """Refuse wrong labels and classes too small for a split before any image is decoded."""
    check_labels(source.labels, source.class_names, source.kind)
    for split, rule in options.splits.items():
        needed = num_parts(rule.fractions)
        if options.per_class is not None and options.per_class < needed:
            rule_text = f"is less than the {needed} images in every class that split {split} needs"
            way_out = f"raise it to {needed} or draw another --split"
            raise Refused("--per-class", options.per_class, rule_text, way_out)
    choice = by_files(source.labels, len(source.class_names), options)
    labels, class_names = renumbered(source.labels, source.class_names, choice)
    _check_identities(source.class_names, class_names, options)
    if options.max_images is None:  # otherwise a class may shrink below it
        check_labels(labels, class_names, source.kind)
    if labels.size:
        _drawn_splits(labels, class_names, options)


def _select(examined: Examined, source: Source, options: Options) -> _Selected:
    """Choose the images to keep; refuse if too few are left for labels or splits."""
    choice = choose(examined, options)
    labels, class_names = renumbered(source.labels, source.class_names, choice)
    _check_identities(source.class_names, class_names, options)
    check_labels(labels, class_names, source.kind)
    return _Selected(choice, labels, class_names, _drawn_splits(labels, class_names, options))


def _check_identities(listed: tuple[str, ...], kept: tuple[str, ...], options: Options) -> None:
    """Refuse listed classes, by name or by label, that are left out: those after them would move up."""
    has_labels = any(split.labels for split in options.split_lists.values())
    option = "--identities" if options.identities else "--split-list" if has_labels else ""
    lost = [name for name in listed if name not in set(kept)] if option else []
    for name in lost[:1]:
        rule = f"lists {name}, whose images --min-images, --max-images, --duplicates or --on-bad leave out"
        way_out = "remove it from the list or change that option"
        raise Refused(option, NO_VALUE, f"{rule} ({len(lost)} of {len(listed)} classes)", way_out)


def _drawn_splits(
    labels: np.ndarray, class_names: tuple[str, ...], options: Options
) -> dict[str, np.ndarray]:
    """Return the codes of each split that is drawn, (n,) uint8; refuse classes that are too small for one."""
    return {
        split: make_split(labels, rule.fractions, rule.seed, class_names)
        for split, rule in options.splits.items()
    }


def _dropped(source: Source, choice: Choice) -> list[tuple[str, str]]:
    """Return reason and name of each image that is not kept, those that the source leaves out first."""
    left_out = [(reason, name) for reason, names in source.left_out.items() for name in names]
    return left_out + [(reason, source.label_of(index)) for index, reason in choice.dropped]


def _first_names(dropped: list[tuple[str, str]]) -> tuple[str, ...]:
    seen: Counter[str] = Counter()
    names = []
    for reason, name in dropped:
        seen[reason] += 1
        if seen[reason] <= NAMES_KEPT:
            names.append(name)
    return tuple(names)


def _write_images(
    images: Iterable[np.ndarray], folder: _Folder
) -> tuple[tuple[int, int, int], tuple[File, ...]]:
    shards: list[File] = []
    pending: list[np.ndarray] = []
    shape: tuple[int, ...] = ()
    for image in images:
        shape = image.shape
        pending.append(image)
        if len(pending) * image.nbytes >= SHARD_BYTES:
            shards.append(folder.write(f"images-{len(shards):05d}", np.stack(pending)))
            pending = []
    if pending:
        shards.append(folder.write(f"images-{len(shards):05d}", np.stack(pending)))
    height, width, channels = shape
    return (height, width, channels), tuple(shards)


def _write_splits(source: Source, options: Options, selected: _Selected, folder: _Folder) -> dict[str, Split]:
    kept = selected.choice.kept
    drawn = {split: (selected.codes[split], rule) for split, rule in options.splits.items()}
    given = {split: (codes[kept].astype(np.uint8), None) for split, codes in source.splits.items()}
    entries = {}
    for split, (parts, rule) in {**given, **drawn}.items():
        train, auxiliary, evaluation = np.bincount(parts, minlength=len(PARTS)).tolist()
        file = folder.write(f"splits/{split}", parts)
        entries[split] = Split(file=file, rule=rule, counts=(train, auxiliary, evaluation))
    return entries

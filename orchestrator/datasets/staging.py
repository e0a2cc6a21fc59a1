"""Staging: a source written as uint8 shards, labels and split files, and the manifest last.

One shard is about 64 MiB: reading whole shards is the fastest way from any store to memory, one object per
image the slowest. Files are named by their content, so a restarted staging sends only the missing ones.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets.manifest import NAME, File, Manifest, Options, Split, SplitRule, dump, parse
from orchestrator.datasets.sources.base import BadImage, Source, check_labels
from orchestrator.datasets.splits import PARTS, make_split
from orchestrator.store.blobs import Blobs, sha256

SHARD_BYTES = 64 * 2**20
PER_CLASS_SEED = 0
NAMES_KEPT = 100  # dropped images listed by name, for each reason

Progress = Callable[[Iterable[int]], Iterable[int]]
OnFile = Callable[[File, bool], None]
"""Called with each file once it is in the store, and whether it was sent."""


@dataclass
class _Tally:
    """Images kept and dropped so far."""

    kept: list[int] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    names: list[str] = field(default_factory=list)

    def drop(self, reason: str, name: str) -> None:
        self.dropped[reason] += 1
        if self.dropped[reason] <= NAMES_KEPT:
            self.names.append(name)


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
    tally = _Tally()
    for reason, names in source.left_out.items():
        for one in names:
            tally.drop(reason, one)
    present = {entry.name: entry.size for entry in blobs.entries(f"{name}/")}
    folder = _Folder(blobs, name, on_file, present)
    shape, shards = _write_images(_images(source, options, tally, progress), folder)
    labels, class_names = _kept_classes(source, options, np.array(tally.kept))
    manifest = Manifest(
        name=name,
        source=source.kind,
        source_sha256=source.fingerprint,
        options=options,
        seen=len(source.labels) + sum(map(len, source.left_out.values())),
        kept=len(tally.kept),
        dropped=dict(tally.dropped),
        dropped_names=tuple(tally.names),
        class_names=class_names,
        image_shape=shape,
        images=shards,
        labels=folder.write("labels", labels),
        splits=_write_splits(source, options, labels, tally, folder),
    )
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


def _check_early(source: Source, options: Options) -> None:
    """Refuse wrong labels and classes too small for a split before any image is decoded."""
    check_labels(source.labels, source.class_names, source.kind)
    kept = np.flatnonzero(_stays(source, options)[source.labels] & _drawn(source, options))
    labels, _ = _kept_classes(source, options, kept)
    for rule in options.splits.values():
        make_split(labels, rule.fractions, rule.seed)


def _sizes(source: Source) -> np.ndarray:
    return np.bincount(source.labels, minlength=len(source.class_names))


def _stays(source: Source, options: Options) -> np.ndarray:
    """Return whether each class is kept, (K,) bool: enough images and not too many."""
    sizes = _sizes(source)
    return (sizes >= options.min_images) & (sizes <= (options.max_images or sizes.max(initial=0)))


def _drawn(source: Source, options: Options) -> np.ndarray:
    """Return whether each image is among the `per_class` drawn of its class, (N,) bool."""
    if options.per_class is None:
        return np.ones(len(source.labels), dtype=bool)
    order = np.random.default_rng(PER_CLASS_SEED).permutation(len(source.labels))
    by_class = order[np.argsort(source.labels[order], kind="stable")]
    sizes = _sizes(source)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    drawn = np.zeros(len(order), dtype=bool)
    drawn[by_class[rank < options.per_class]] = True
    return drawn


def _images(source: Source, options: Options, tally: _Tally, progress: Progress) -> Iterator[np.ndarray]:
    """Yield the images that are kept, (H, W, C) uint8; record them and those dropped in `tally`."""
    sizes, stays, drawn = _sizes(source), _stays(source, options), _drawn(source, options)
    seen: dict[str, int] = {}  # content digest -> label
    for index in progress(range(len(source.labels))):
        name, label = source.label_of(index), int(source.labels[index])
        if not stays[label]:
            is_small = sizes[label] < options.min_images
            tally.drop("class too small" if is_small else "class too large", name)
            continue
        if not drawn[index]:
            tally.drop("beyond --per-class", name)
            continue
        try:
            image = source.read(index)
        except BadImage as error:
            if options.on_bad == "error":
                raise
            tally.drop(error.reason, name)
            continue
        content = sha256(image.tobytes())
        if options.duplicates == "drop" and content in seen:
            tally.drop("duplicate" if seen[content] == label else "duplicate of another class", name)
            continue
        seen[content] = label
        tally.kept.append(index)
        yield image


def _kept_classes(source: Source, options: Options, kept: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the labels of the kept images (N,) int64, renumbered without dropped classes, and names."""
    chosen = _stays(source, options)
    labels = (np.cumsum(chosen) - 1)[source.labels[kept]].astype(np.int64)
    names = tuple(name for name, stays in zip(source.class_names, chosen, strict=True) if stays)
    check_labels(labels, names, source.kind)
    return labels, names


def _write_images(
    images: Iterable[np.ndarray], folder: _Folder
) -> tuple[tuple[int, int, int], tuple[File, ...]]:
    shards: list[File] = []
    pending: list[np.ndarray] = []
    shape: tuple[int, ...] = ()
    for image in images:
        shape = shape or image.shape
        if image.shape != shape:
            rule = f"differ in size or channels ({_spell(shape)} and {_spell(image.shape)})"
            raise Refused(f"images of {folder.name}", NO_VALUE, rule, "pass --size and --channels")
        pending.append(image)
        if len(pending) * image.nbytes >= SHARD_BYTES:
            shards.append(folder.write(f"images-{len(shards):05d}", np.stack(pending)))
            pending = []
    if pending:
        shards.append(folder.write(f"images-{len(shards):05d}", np.stack(pending)))
    if not shards:
        raise Refused(folder.name, NO_VALUE, "would have no images", "check the source and --on-bad")
    height, width, channels = shape
    return (height, width, channels), tuple(shards)


def _write_splits(
    source: Source, options: Options, labels: np.ndarray, tally: _Tally, folder: _Folder
) -> dict[str, Split]:
    drawn: dict[str, tuple[np.ndarray, SplitRule | None]] = {
        split: (make_split(labels, rule.fractions, rule.seed), rule) for split, rule in options.splits.items()
    }
    given = {split: (codes[tally.kept].astype(np.uint8), None) for split, codes in source.splits.items()}
    entries = {}
    for split, (codes, rule) in {**given, **drawn}.items():
        train, auxiliary, evaluation = np.bincount(codes, minlength=len(PARTS)).tolist()
        file = folder.write(f"splits/{split}", codes)
        entries[split] = Split(file=file, rule=rule, counts=(train, auxiliary, evaluation))
    return entries


def _spell(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))

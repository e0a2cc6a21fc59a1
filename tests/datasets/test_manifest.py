"""Manifests: canonical bytes, older ones, and damaged ones."""

import hashlib
import json

import pytest

from orchestrator.config.base import Refused
from orchestrator.datasets.builtin import staged
from orchestrator.datasets.manifest import NAME, ListedSplit, Options, dump, parse, standard_splits
from orchestrator.store.blobs import sha256

WHERE = "digits/manifest.json"


def stored() -> bytes:
    data = staged("digits").get(WHERE)
    assert data is not None
    return data


def test_a_manifest_is_written_as_it_is_read() -> None:
    assert dump(parse(stored(), WHERE)) == stored()
    assert sha256(stored()) == hashlib.sha256(stored()).hexdigest()


def test_a_manifest_from_before_an_option_was_there_is_read() -> None:
    manifest = parse(stored(), WHERE)
    fields = json.loads(stored())
    for name in ("crop", "stretch", "max_images", "exclude"):
        del fields["options"][name]
    assert parse(json.dumps(fields).encode(), "old") == manifest


def test_records_of_lists_are_left_out_where_there_are_none() -> None:
    options = json.loads(stored())["options"]
    assert not {"identities", "split_lists"} & set(options)
    record = ListedSplit(sha256=("0" * 64, None, None), names=(3, 0, 0))
    assert Options(split_lists={"own": record}).model_dump()["split_lists"]["own"]["names"] == (3, 0, 0)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"format": 2}, "format"),
        ({"source_sha256": "0"}, "source_sha256"),
        ({"labels": {"name": "../labels.npy", "size": 1, "sha256": "0" * 64}}, "labels.name"),
        ({"pixels": 1}, "pixels"),
    ],
)
def test_a_damaged_manifest_is_refused_by_its_field(change: dict[str, object], field: str) -> None:
    fields = json.loads(stored()) | change
    with pytest.raises(Refused, match=rf"^set/manifest\.json is no manifest of format 1 \({field}: .*stage"):
        parse(json.dumps(fields).encode(), "set/manifest.json")


def test_bytes_that_are_no_json_are_refused() -> None:
    with pytest.raises(Refused, match=r"^here is no manifest of format 1 \(file: "):
        parse(b"<html>", "here")


def test_the_standard_splits_are_ours_and_those_of_ami() -> None:
    rules = standard_splits()
    assert {name: rule.fractions for name, rule in rules.items()} == {
        "default": (0.5, 0.25, 0.25),
        "half": (0.5, 0.0, 0.5),
        "eighty": (0.8, 0.0, 0.2),
    }
    assert [rule.seed for rule in rules.values()] == [0, 666, 666]


@pytest.mark.parametrize(("name", "fits"), [("a.b-c_1", True), ("A", False), (".a", False), ("a/b", False)])
def test_names_are_plain(name: str, fits: bool) -> None:
    assert (NAME.fullmatch(name) is not None) is fits

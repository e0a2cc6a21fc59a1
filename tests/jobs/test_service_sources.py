"""Staging of a service by its description, and the options that it has no use for."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from jobs import stage_weights
from tests.config.test_service import PLAIN


def staged(file: Path, folder: Path, *options: str) -> tuple[int, str]:
    command = [str(file), str(folder / "data"), "--name", "ex", "--service", *options]
    done = CliRunner().invoke(stage_weights.app, command)
    return done.exit_code, done.output


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a description."""
    path = tmp_path / "service.yaml"
    path.write_text(yaml.safe_dump({**PLAIN, "asking": {"budget": 10}}), encoding="utf-8")
    return path


def test_a_description_is_staged_once(file: Path, tmp_path: Path) -> None:
    place = (tmp_path / "data").as_uri()
    rest = (
        "service: https://host/classify, 3 classes, 3 probabilities of each image\n"
        "asking: at most 10 requests of 1 images\n"
    )
    assert staged(file, tmp_path) == (0, f"staged {place}/weights/ex\n{rest}")
    assert staged(file, tmp_path) == (0, f"already staged, nothing written: {place}/weights/ex\n{rest}")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--program"], "error: --program is of a file, and SOURCE describes a service; leave it out."),
        (
            ["--image-size", "8"],
            "error: --image-size is of a file, and SOURCE describes a service; leave it out.",
        ),
        (["--classes", "x"], "error: --classes is of a file, and SOURCE describes a service; leave it out."),
        (["--model", "vgg16"], "error: --model is of a file, and SOURCE describes a service; leave it out."),
    ],
    ids=range(4),
)
def test_options_of_files_are_refused(options: list[str], line: str, file: Path, tmp_path: Path) -> None:
    assert staged(file, tmp_path, *options) == (2, f"{line}\n")
    assert not (tmp_path / "data").exists()


def test_what_is_no_description_is_one_line(tmp_path: Path) -> None:
    code, text = staged(tmp_path / "none.yaml", tmp_path)
    assert (code, text.startswith("error: SOURCE=")) == (2, True)
    assert text.endswith("is no file; name the YAML file that describes the service.\n")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe")
    code, text = staged(tmp_path / "bytes.yaml", tmp_path)
    assert (code, text.endswith("is no UTF-8 text; name a description.\n")) == (2, True)

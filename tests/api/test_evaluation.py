"""`inv.evaluate`: a module is attacked, judged, stored as by a study; what cannot be is one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

import orchestrator as inv
from orchestrator.config.base import Refused
from orchestrator.config.study import StudyError
from tests.models.programs import files
from tests.stages.test_given import private, trained

SHORT = {"epochs": 1, "batch_size": 64, "learning_rate": 0.003}
SMALL: dict[str, Any] = {
    "attack.model.width": 0.02,
    "attack.recipe": SHORT,
    "judge.model.width": 0.02,
    "judge.recipe": {**SHORT, "epochs": 8},
    "evaluation.images": 16,
    "evaluation.grid": 4,
}


@pytest.fixture(scope="module")
def module() -> nn.Module:
    """Return a classifier of three digits, trained elsewhere."""
    return trained(private("train"))


def pairs() -> dict[str, Any]:
    """Return the images that it was trained on and others, with their classes."""
    sets = {"private": private("train"), "held_out": private("evaluation")}
    return {name: (one.images[:].numpy(), one.labels.numpy()) for name, one in sets.items()}


def test_a_module_is_attacked_and_stored_as_by_a_study(
    module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("INVERSION_STORE", "INVERSION_DATA", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    given: dict[str, Any] = {**pairs(), "out": tmp_path, "ship_later": True, "settings": SMALL}
    lines: list[str] = []
    results = inv.evaluate(module, **given, say=lines.append)
    (row,) = results.table.to_dict("records")
    assert row["status"] == "finished"
    assert row["target/accuracy"] > 0.9  # class i is output i, and images are scaled as it takes them
    assert row["attack/queries"] > 0
    assert row["inversion/mse_test"] > 0
    assert results.images(0, part="test").private.shape == (4, 1, 32, 32)
    assert results.folder.parent == tmp_path
    assert (tmp_path / ".gitignore").read_text(encoding="ascii") == "*\n"
    assert lines[0].startswith("1 trials, ")
    assert not lines[0].endswith(" 0 stages to run")
    lines.clear()
    again = inv.evaluate(module, **given, say=lines.append)
    assert lines[0] == "1 trials, 0 stages to run"
    assert again.files == results.files
    small = {"prior": {"model": {"name": "gmi", "width": 0.02}, "epochs": 1}, **SMALL}
    for name in ("attack.model.width", "attack.recipe", "evaluation.images"):
        small.pop(name)
    others = np.random.default_rng(0).random((64, 1, 32, 32), dtype=np.float32)
    white = inv.evaluate(
        module, **{**given, "settings": small}, attack={"name": "gmi", "steps": 2}, auxiliary=others
    )
    assert white.table["status"].tolist() == ["finished"]
    assert white.table["class/target_top1"].notna().all()
    assert white.study.base["prior"]["dataset"].startswith("auxiliary-")


class Stops(nn.Module):
    """A classifier through which no gradient passes."""

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (N, 3) of images (N, C, S, S)."""
        return images.flatten(1)[:, :3].detach()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"module": files.Small()}, "^module is in training mode, "),
        ({"module": files.Small().eval()}, r"^module cannot be exported for \(1, 32, 32\) images"),
        ({"module": Stops().eval(), "attack": "gmi"}, "^module passes no gradient .*attack=gmi reads grad"),
        ({"attack": "gm"}, "^attack=gm is unknown; choose one of "),
        ({"attack": {"name": "gmi", "stepz": 1}}, r"^attack\.stepz is not a field"),
        ({"attack": "mia", "auxiliary": np.zeros((1, 1, 32, 32))}, "^auxiliary is given, and attack=mia has"),
        ({"private": pairs()["private"][0]}, r"^private must be a pair: images \(N, C, S, S\) and the class"),
        (
            {"held_out": (np.zeros((2, 1, 8, 8), dtype=np.uint8), np.arange(2))},
            r"^held_out has images uint8 \(1, 8, 8\), private has",
        ),
        (
            {"held_out": (np.zeros((2, 1, 32, 32)), np.arange(3))},
            r"^held_out has images \(2, 1, 32",
        ),
        (
            {"private": (pairs()["private"][0], pairs()["private"][1] + 1)},
            r"^private has the classes 0\.\.3, 4 of them, and the module has 3 outputs; give images of each",
        ),
        ({"settings": {"target.budget": "block1"}}, r"budget=block1 is of a network of this project"),
    ],
    ids=range(11),
)
def test_what_cannot_be_evaluated_is_one_line(
    changes: dict[str, Any], text: str, module: nn.Module, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"module": module, **pairs(), "out": tmp_path / "out", **changes}
    with pytest.raises((Refused, StudyError), match=text) as caught:
        inv.evaluate(given.pop("module"), **given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "store").exists()

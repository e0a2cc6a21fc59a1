"""Class inference of chosen classes, with several candidates for each; passes of an evaluation."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from torch import Tensor, nn

from orchestrator.config import Evaluation
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from tests import tiny

MIA = {"name": "mia", "steps": 3, "noise": 0.2}
INFERENCE: dict[str, Any] = {"attack": MIA, "evaluation.task": "class-inference"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store that the tests of this file share."""
    return tmp_path_factory.mktemp("classes")


def left(folder: Path, changes: dict[str, Any], stage: str, name: str) -> np.ndarray:
    """Return an array that a stage of a trial leaves."""
    spec = tiny.spec({**INFERENCE, **changes})
    tiny.run(spec, folder)
    store = Artifacts(DirectoryBlobs(folder))
    artifact = store.find(tiny.stages(spec)[stage].key)
    assert artifact is not None
    return np.load(io.BytesIO(store.read(artifact, name)), allow_pickle=False)


def test_chosen_classes_and_candidates_have_their_images(folder: Path) -> None:
    name = "reconstructions_class.npy"
    every = left(folder, {}, "optimization", name)
    chosen = {"evaluation.classes": [2, 0], "evaluation.candidates": 3}
    images = left(folder, chosen, "optimization", name)
    assert (len(every), len(images)) == (3, 6)
    assert np.array_equal(images[:2], every[[2, 0]])  # the first candidates are those of the attack's seed
    for label in (0, 1):
        assert len({image.tobytes() for image in images[label::2]}) == 3
    table = left(folder, chosen, "evaluation", "per_image_class.npy")
    assert table["label"].tolist() == [2, 0] * 3
    alone = left(folder, {}, "evaluation", "per_image_class.npy")
    for field in ("target_confidence", "mse_mean", "mse_nearest", "target_top1"):
        assert table[field][:2] == pytest.approx(alone[field][[2, 0]], abs=1e-6), field


def test_an_inverter_infers_the_chosen_classes(folder: Path) -> None:
    changes = {"attack": {"model": tiny.DIGIT, "recipe": tiny.RECIPE}}
    every = left(folder, changes, "evaluation", "per_image_class.npy")
    one = left(folder, {**changes, "evaluation.classes": [1]}, "evaluation", "per_image_class.npy")
    assert one["label"].tolist() == [1]
    assert one["target_confidence"] == pytest.approx(every["target_confidence"][[1]], abs=1e-6)


def test_a_class_that_no_answer_names_is_not_inferred_and_fails(folder: Path) -> None:
    """One epoch of training leaves a target that names two of its three classes in eight answers."""
    attack = {"model": tiny.DIGIT, "recipe": tiny.RECIPE, "classes": "estimated"}
    changes = {"attack": attack, "auxiliary.size": 8}
    answers = left(folder, changes, "predictions", "scores.npy").argmax(axis=1)
    table = left(folder, changes, "evaluation", "per_image_class.npy")
    shown = left(folder, changes, "evaluation", "reconstructions_class.npy")
    missed = sorted({0, 1, 2} - set(answers.tolist()))
    assert missed
    for field in ("target_top1", "target_confidence", "judge_top1", "judge_top5"):
        assert not table[field][missed].any(), field
    assert (shown[missed] == 128).all()
    metrics = tiny.run(tiny.spec({**INFERENCE, **changes}), folder)
    assert metrics["attack/classes_estimated"] == 3 - len(missed) == metrics["predictions/classes_seen"]
    seen = sorted(set(answers.tolist()))
    assert (table["target_confidence"][seen] > 0).all()


def test_no_judge_accepts_a_class_that_no_answer_names(folder: Path) -> None:
    """Grey stands for it, which judges give some class and rank in each: they accept it among five here."""
    attack = {"model": tiny.DIGIT, "recipe": tiny.RECIPE, "classes": "estimated"}
    judges = {f"other{seed}": {"model": tiny.DIGIT, "recipe": tiny.RECIPE, "seed": seed} for seed in (50, 51)}
    changes = {"attack": attack, "auxiliary.size": 8, "judges": {"classifiers": judges}}
    is_made = left(folder, changes, "reconstructions", "made_class.npy")
    answers = left(folder, changes, "predictions", "scores.npy").argmax(axis=1)
    assert is_made.tolist() == [label in answers for label in range(3)]
    assert 0 < is_made.sum() < 3
    own = left(folder, changes, "evaluation", "per_image_class.npy")
    for name in judges:
        table = left(folder, changes, f"judgement.{name}", "per_image_class.npy")
        for field in ("judge_top1", "judge_top5"):
            assert not table[field][~is_made].any(), field
        assert table["agreement"].tolist() == (table["judge_top1"] == own["judge_top1"]).tolist()
    ranks = left(folder, changes, "retrieval", "per_image_class.npy")
    assert (ranks["class_rank"][~is_made] == 10).all()
    assert not ranks["class_nearest"][~is_made].any()
    assert (ranks["class_rank"][is_made] == 1).tolist() == (own["judge_top1"][is_made] == 1).tolist()


def test_fields_at_their_defaults_change_no_key_and_others_change_what_reads_them() -> None:
    plain = tiny.stages(tiny.spec(INFERENCE))
    named = tiny.stages(tiny.spec({**INFERENCE, "evaluation.classes": None, "evaluation.candidates": 1}))
    assert {name: stage.key for name, stage in plain.items()} == {
        name: stage.key for name, stage in named.items()
    }
    assert "candidates" not in Evaluation().model_dump(mode="json")
    for changes in ({"evaluation.classes": [0]}, {"evaluation.candidates": 2}):
        other = tiny.stages(tiny.spec({**INFERENCE, **changes}))
        differ = {name for name in plain if plain[name].key != other[name].key}
        assert differ == {"optimization", "yardsticks", "retrieval", "evaluation"}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"evaluation.classes": [3]},
            r"evaluation\.classes=3 must lie in 0\.\.target\.classes-1=2 and be named once; correct it or "
            r"use null for all classes\.",
        ),
        ({"evaluation.classes": [1, 1]}, r"evaluation\.classes=1 must lie in .* and be named once"),
        ({"evaluation.classes": []}, "at least 1 item"),
        (
            {"attack": tiny.BASE["attack"], "evaluation.candidates": 2},
            r"evaluation\.candidates=2 would be the same image each time, as attack\.name=inverter",
        ),
        (
            {"attack": {**MIA, "noise": 0.0}, "evaluation.candidates": 2},
            r"same image each time, as attack\.name=mia draws nothing; use 1 or set attack\.noise above 0\.",
        ),
        (
            {"attack": tiny.BASE["attack"], "evaluation.task": "reconstruction", "evaluation.candidates": 2},
            r"evaluation\.candidates=2 is of class inference; leave it out or set evaluation\.task=class-inf",
        ),
    ],
    ids=str,
)
def test_classes_that_cannot_be_inferred_are_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        tiny.spec({**INFERENCE, **changes})


def test_target_and_judge_see_each_reconstruction_once_and_no_training_image(tmp_path: Path) -> None:
    """The judge's features of training images come from its own stage. Only these two networks begin with a
    convolution of one channel here."""
    spec = tiny.spec()
    tiny.run(spec, tmp_path)
    seen: list[int] = []

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(layer, nn.Conv2d) and layer.in_channels == 1:
            seen.append(len(inputs[0]))

    hook = nn.modules.module.register_module_forward_hook(count)
    try:
        tiny.run(spec.but(evaluation=spec.evaluation.but(grid=2)), tmp_path)  # the evaluation alone
    finally:
        hook.remove()
    assert sum(seen) == 2 * 2 * spec.evaluation.images

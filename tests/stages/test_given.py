"""A model that exists is attacked: its staged weights are F bit for bit, whole, or one line says why not."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.config import Data, TrialSpec
from orchestrator.config.normalise import normalise
from orchestrator.config.study import StudyError
from orchestrator.datasets import Location, load, weights
from orchestrator.datasets.selection import ImageSet, judge_images, private_classes, target_images
from orchestrator.stages.graph import StageFailed
from orchestrator.stages.io import Inputs
from orchestrator.stages.target_model import stored_target
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.directory import DirectoryBlobs
from orchestrator.sweep.validation import Preflight
from orchestrator.training.pairs import as_unit
from orchestrator.training.world import World
from tests import tiny
from tests.stages.test_pretrain import built, left, network, planned, staged
from tests.sweep.test_validation import point

FILE: dict[str, Any] = {"classes": 3, "model": tiny.DIGIT, "weights": "theirs"}
GIVEN = {"target": {**FILE, "minimum_accuracy": 0.5}}  # which tells that they have the drawn order


def student(name: str) -> dict[str, Any]:
    """Return changes to an attack of LOMMA with one student that starts from weights."""
    students = {"x": {"model": tiny.DIGIT, "weights": name}}
    attack = {"name": "lomma-g", "identity": {"students": students}}
    return {**GIVEN, "prior": {}, "attack": attack, "evaluation.task": "class-inference"}


class Theirs(nn.Module):
    """A classifier as its owner wrote it, in plain torch: grey 32x32 digits -> logits of three classes."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()

        def down(before: int, after: int) -> nn.Sequential:
            convolution = nn.Conv2d(before, after, 3, padding=1)
            return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.MaxPool2d(2), nn.ReLU())

        hidden = 5 * classes
        self.blocks = nn.Sequential(down(1, 4), down(4, 4), down(4, 5))
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(80, hidden), nn.Dropout(0.5), nn.Linear(hidden, classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, k) of images (N, 1, 32, 32) in [0, 1]."""
        logits: Tensor = self.head(self.blocks(images))
        return logits


def private(part: str) -> ImageSet:
    """Return one part of the private images of the tiny trial."""
    data = Data.model_validate(tiny.BASE["data"])
    return target_images(load("digits", Location()), data, 3, part)


def trained(seen: ImageSet) -> Theirs:
    """Return a classifier trained in plain torch."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Theirs(seen.num_classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(15):
        for batch in torch.randperm(len(seen)).split(32):
            optimizer.zero_grad()
            logits = model(seen.images[batch].float() / 255)
            functional.cross_entropy(logits, seen.labels[batch]).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def theirs() -> Theirs:
    """Return a trained classifier of the tiny trial's private classes."""
    return trained(private("train"))


@pytest.fixture(scope="module")
def judging() -> Theirs:
    """Return a trained classifier of all ten digits, in staged order."""
    return trained(judge_images(load("digits", Location()), Data(dataset="digits"), "auxiliary"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for data and store, which the tests share."""
    return tmp_path_factory.mktemp("given")


@pytest.fixture(scope="module")
def location(theirs: Theirs, judging: Theirs, folder: Path) -> Location:
    """Return a data location at which the weights of both are staged, and those of a judge without skill."""
    states = {"theirs": theirs, "judging": judging, "random": Theirs(10)}
    return staged(folder / "data", **{name: one.state_dict() for name, one in states.items()})


def logits_of(store: Artifacts, trial: TrialSpec, location: Location, images: Tensor) -> Tensor:
    """Return the logits of F as later stages load it."""
    artifact = store.find(planned(trial, location)["given"].key)
    assert artifact is not None
    inputs = Inputs(World(), lambda name: load(name, location), lambda role, name: store.read(artifact, name))
    with torch.no_grad():
        return stored_target(inputs, trial.data, trial.target)(images)


def test_it_is_attacked_as_it_is(theirs: Theirs, location: Location, folder: Path) -> None:
    trial = tiny.spec(GIVEN)
    stages = planned(trial, location)
    assert not {"pretrain", "target"} & stages.keys()
    store = built(trial, location, folder / "store")
    assert all(store.find(stage.key) for stage in stages.values())
    seen = private("evaluation")
    with torch.no_grad():
        wanted = theirs(as_unit(seen.images[:]))
    found = logits_of(store, normalise(trial), location, as_unit(seen.images[:]))
    assert torch.equal(found, wanted)
    state, metrics = left(store, stages["given"])
    assert all(torch.equal(state[name], tensor) for name, tensor in theirs.state_dict().items())
    accuracy = (wanted.argmax(1) == seen.labels).double().mean().item()
    assert metrics["target/accuracy"] == pytest.approx(accuracy)
    assert accuracy > 0.9
    assert metrics["target/theta_c_millions"] == metrics["target/theta_t_millions"] > 0
    evaluation = store.find(stages["evaluation"].key)
    assert evaluation is not None
    assert {"inversion/mse_train", "inversion/mse_test"} <= evaluation.metrics.keys()


def test_its_digest_is_in_its_key_and_in_those_after(
    theirs: Theirs, location: Location, tmp_path: Path
) -> None:
    trial = tiny.spec(GIVEN)
    other = staged(tmp_path, theirs={name: one + 1 for name, one in theirs.state_dict().items()})
    before, after = planned(trial, location), planned(trial, other)
    assert before["given"].weights["target"]["digest"] == weights.describe("theirs", location).digest
    assert {name for name in before if before[name].key == after[name].key} == {"judge"}


def test_too_low_an_accuracy_fails_before_any_attack(location: Location, tmp_path: Path) -> None:
    low = {**GIVEN["target"], "minimum_accuracy": 0.9999}
    with pytest.raises(StageFailed) as caught:
        built(tiny.spec({"target": low}), location, tmp_path)
    assert caught.value.stage == "given"
    assert caught.value.message.startswith("ValueError: target.weights=theirs reach an accuracy of 0.9")
    assert caught.value.message.endswith(
        " on the private test images, below target.minimum_accuracy=0.9999; check the order of the classes "
        "(data.class_order), data.split and target.model.scaling, or lower it."
    )
    assert Artifacts(DirectoryBlobs(tmp_path)).keys() == []
    built(tiny.spec({"target": {**low, "minimum_accuracy": 0.8}}), location, tmp_path, "given")


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("pretrain", {}, ""),
        ("freezes_random", True, "=True"),
        ("recipe", tiny.RECIPE, ""),
        ("selection", "last", "=last"),
        ("snapshots", [1], "=(1,)"),
        ("seed", 1, "=1"),
    ],
)
def test_settings_of_a_training_are_refused(field: str, value: Any, shown: str) -> None:
    with pytest.raises(ValidationError) as caught:
        tiny.spec({"target": {**GIVEN["target"], field: value}})
    (fault,) = caught.value.errors()
    way_out = "sweep attack.seed in place of seed" if field == "seed" else "leave it out"
    assert fault["msg"] == (
        f"Value error, {field}{shown} is of a training, but target.weights=theirs are F as they are; "
        f"{way_out}."
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"attack": {"name": "joint", "model": tiny.DIGIT}},
            "target.weights=theirs are F as they are, but attack.name=joint trains F; leave them out or "
            "choose another attack.",
        ),
        (
            {"release.shield": {}},
            "release.shield.means=held-out needs images held out from training, and which "
            "target.weights=theirs had not seen is unknown; use train.",
        ),
        (
            {"judge.weights": "theirs"},
            "judge.weights=theirs are the target itself, which must not judge what is made of it; name other "
            "weights or leave them out.",
        ),
        (
            student("theirs"),
            "attack.identity.students.x.weights=theirs is the target itself, which the adversary does not "
            "have; name other weights or leave them out.",
        ),
    ],
    ids=["joint", "shield", "judge", "student"],
)
def test_what_needs_a_training_or_a_second_model_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        tiny.spec({**GIVEN, **changes})
    assert text in str(caught.value)


def test_a_judge_with_the_targets_settings_is_another_network() -> None:
    assert tiny.spec({**GIVEN, "judge": {"model": tiny.DIGIT, "seed": 0}}).judge.seed == 0


def renamed(state: dict[str, Tensor], **changes: Tensor | None) -> dict[str, Tensor]:
    """Return a state dict with tensors replaced, or left out for None; `__` stands for a dot."""
    named = {name.replace("__", "."): tensor for name, tensor in changes.items()}
    return {name: tensor for name, tensor in (state | named).items() if tensor is not None}


def restaged(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights as another file of another digest has them: batches were counted otherwise."""
    return {
        name: tensor + 1 if name.endswith("batches_tracked") else tensor for name, tensor in state.items()
    }


def test_weights_that_are_not_the_target_whole_are_told_before_anything_runs(
    theirs: Theirs, tmp_path: Path
) -> None:
    state = dict(theirs.state_dict())
    ours = network(10, {"name": "ami-digit", "width": 0.05}).state_dict()
    vgg = {"name": "vgg16", "width": 0.02}
    normless = {n: t for n, t in network(3, vgg, 64).state_dict().items() if not n.startswith("blocks.norm")}
    location = staged(
        tmp_path,
        theirs=state,
        twin=restaged(state),
        five=Theirs(5).state_dict(),
        headless={name: tensor for name, tensor in state.items() if name.startswith("blocks.")},
        narrow=renamed(state, head__1__weight=torch.zeros(9, 80)),
        odd=renamed(state, **{"blocks__1__0__weight": torch.zeros(4, 4, 5, 5)}),
        more=renamed(state, **{"extra__weight": torch.zeros(2)}),
        colour=renamed(state, **{"blocks__0__0__weight": torch.zeros(4, 3, 3, 3)}),
        wide=OrderedDict(renamed(ours, head__3__weight=torch.zeros(3, 50), head__3__bias=torch.zeros(3))),
        normless=normless,
    )
    field, network_ = "target.weights", "do not fit AmiClassifier: "
    way_out = "use the network, width, image size and defense that they were trained with."
    cases: list[tuple[dict[str, Any], str]] = [
        ({"weights": "them"}, f"{field}=them is unknown; staged at "),
        ({"weights": "five"}, f"{field}=five have 5 outputs, and target.classes=3; set target.classes=5."),
        (
            {"weights": "headless"},
            f"{field}=headless {network_}4 tensors are missing (first: head.1.weight); {way_out}",
        ),
        (
            {"weights": "narrow"},
            f"{field}=narrow {network_}1 of another shape (first: head.1.weight has (9, 80), wants "
            f"(15, 80)); {way_out}",
        ),
        (
            {"weights": "odd"},
            f"{field}=odd {network_}1 of another shape (first: blocks.1.0.weight has (4, 4, 5, 5), wants "
            f"(4, 4, 3, 3)); {way_out}",
        ),
        ({"weights": "more"}, f"{field}=more {network_}1 unknown (first: extra.weight); {way_out}"),
        (
            {"weights": "colour"},
            f"{field}=colour {network_}1 of another shape (first: blocks.0.0.weight has (4, 3, 3, 3), wants "
            "(4, 1, 3, 3)); set data.channels=3.",
        ),
        (
            {"weights": "wide"},
            f"{field}=wide {network_}21 of another shape (first: blocks.0.0.weight has (6, 1, 3, 3), wants "
            f"(4, 1, 3, 3)); {way_out}",
        ),
        (
            {"weights": "theirs", "defense": {"mid": {}}},
            f"{field}=theirs {network_}4 tensors are missing (first: head.bottleneck.weight), 4 unknown "
            f"(first: head.1.bias); {way_out}",
        ),
    ]
    for changes, text in cases:
        target = {**GIVEN["target"], **changes}
        preflight = Preflight(location)
        for _ in range(2):  # what was refused is not taken for checked
            with pytest.raises(StudyError) as caught:
                preflight.resolve(point({"target": target}))
            assert str(caught.value).startswith(text), caught.value
            assert "\n" not in str(caught.value)
    for changes, text in (
        (
            {
                "target": {**GIVEN["target"], "model": vgg, "weights": "normless"},
                "data.image_size": 64,
                "attack.model": {"name": "ami-face", "width": 0.01},
            },
            # A start for a training may lack this norm; a whole model may not.
            f"{field}=normless do not fit Vgg16: 4 tensors are missing (first: blocks.norm.weight); "
            f"{way_out}",
        ),
        (
            {**GIVEN, "judge.weights": "twin"},
            "judge.weights=twin are the target itself under another name, which must not judge what is made "
            "of it; name other weights or leave them out.",
        ),
        (
            student("twin"),
            "attack.identity.students.x.weights=twin is the target itself under another name, which the "
            "adversary does not have; name other weights or leave them out.",
        ),
    ):
        with pytest.raises(StudyError) as caught:
            Preflight(location).resolve(point(changes))
        assert str(caught.value) == text
    preflight = Preflight(location)
    for changes in ({}, {"budget": "block1"}, {"defense": {"bido": {}}}):
        preflight.resolve(point({"target": {**GIVEN["target"], **changes}}))
    assert preflight.digests["weights/theirs"] == weights.describe("theirs", location).digest


def test_a_defended_network_is_built_as_it_was_trained(location: Location, tmp_path: Path) -> None:
    """The head of MID and group norms of DP-SGD come from a file that holds them."""
    trained = {"classes": 3, "model": tiny.DIGIT, "recipe": tiny.RECIPE}
    defenses: list[dict[str, Any]] = [
        {"mid": {"noise_at_inference": False}},
        {"dp": {}},
        {"loft": {"rank": 4}},
    ]
    for defense in defenses:
        own = tiny.spec({"target": {**trained, "defense": defense}})
        store = built(own, location, tmp_path, "target")
        state, metrics = left(store, planned(own, location)["target"])
        name = next(iter(defense))
        other = staged(tmp_path / "data", **{name: state})
        target = {**FILE, "weights": name, "defense": defense, "minimum_accuracy": 0.01}
        trial = normalise(Preflight(other).resolve(point({"target": target, "attack.seed": 0})).spec)
        again, given = left(built(trial, other, tmp_path, "given"), planned(trial, other)["given"])
        assert again.keys() == state.keys()
        assert all(torch.equal(again[one], state[one]) for one in state)
        assert given["target/accuracy"] == metrics["target/accuracy"]
        assert "target/epsilon" not in given


GIVEN_JUDGE = {"model": tiny.DIGIT, "weights": "judging", "trained": False}


def test_a_given_judge_judges_as_it_is(judging: Theirs, location: Location, folder: Path) -> None:
    judge, further = {**GIVEN_JUDGE, "minimum_accuracy": 0.5}, {**GIVEN_JUDGE, "weights": "random"}
    trial = tiny.spec({**GIVEN, "judge": judge, "judges": {"classifiers": {"random": further}}})
    stages = planned(trial, location)
    store = built(trial, location, folder / "store")
    assert all(store.find(stage.key) for stage in stages.values())
    state, metrics = left(store, stages["judge"])
    assert state.keys() == judging.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in judging.state_dict().items())
    test = judge_images(load("digits", Location()), trial.data, "evaluation")
    with torch.no_grad():
        is_right = judging(as_unit(test.images[:])).argmax(1) == test.labels
    assert metrics == {"judge/accuracy": pytest.approx(is_right.double().mean().item())}
    assert metrics["judge/accuracy"] > 0.8
    assert left(store, stages["judge.random"])[1]["judge/accuracy"] < 0.5
    for label, name in (("judge", "judging"), ("judge.random", "random")):
        assert stages[label].weights["start"]["digest"] == weights.describe(name, location).digest
    judgement = store.find(stages["judgement.random"].key)
    assert judgement is not None
    assert "attack/agreement_test" in judgement.metrics


def test_two_judges_of_the_same_weights_are_one() -> None:
    again = {**GIVEN_JUDGE, "minimum_accuracy": 0.5}
    with pytest.raises(ValidationError, match=r"judges\.classifiers\.x is the same as judge, with which it"):
        tiny.spec({"judge": GIVEN_JUDGE, "judges": {"classifiers": {"x": again}}})


def test_two_judges_of_one_file_are_told_before_anything_runs(judging: Theirs, tmp_path: Path) -> None:
    state = dict(judging.state_dict())
    location = staged(tmp_path, judging=state, again=restaged(state))
    further = {"x": {**GIVEN_JUDGE, "weights": "again"}}
    with pytest.raises(StudyError) as caught:
        Preflight(location).resolve(point({"judge": GIVEN_JUDGE, "judges": {"classifiers": further}}))
    assert str(caught.value) == (
        "judges.classifiers.x.weights=again are judge under another name, with which it would always agree; "
        "name other weights or leave it out."
    )


def test_a_judge_below_its_accuracy_fails_its_stage(location: Location, tmp_path: Path) -> None:
    trial = tiny.spec({**GIVEN, "judge": {**GIVEN_JUDGE, "minimum_accuracy": 0.9999}})
    with pytest.raises(StageFailed) as caught:
        built(trial, location, tmp_path, "judge")
    assert caught.value.stage == "judge"
    assert "the judge of weights=judging reaches an accuracy of 0." in caught.value.message
    assert "below minimum_accuracy=0.9999; check the order of the classes" in caught.value.message


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"weights": None}, "trained=false needs weights that are the judge; name them in weights."),
        ({"seed": 9}, "seed=9 is of a training, and trained=false has none; leave it out."),
        ({"recipe": tiny.RECIPE}, "recipe is of a training, and trained=false has none; leave it out."),
        (
            {"images": "auxiliary"},
            "images=auxiliary is of a training, and trained=false has none; leave it out.",
        ),
        (
            {"trained": True, "minimum_accuracy": 0.5},
            "minimum_accuracy=0.5 is of a judge that is not trained here; set trained=false or leave it out.",
        ),
    ],
    ids=["weights", "seed", "recipe", "images", "accuracy"],
)
def test_a_given_judge_has_no_training(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        tiny.spec({"judge": {**GIVEN_JUDGE, **changes}})
    (fault,) = caught.value.errors()
    assert (fault["loc"], fault["msg"]) == (("judge",), f"Value error, {text}")


def test_weights_that_are_no_judge_of_every_class_are_told_before_anything_runs(
    theirs: Theirs, judging: Theirs, tmp_path: Path
) -> None:
    odd = renamed(dict(judging.state_dict()), blocks__1__0__weight=torch.zeros(4, 4, 5, 5))
    location = staged(tmp_path, theirs=theirs.state_dict(), judging=judging.state_dict(), odd=odd)
    further = {"judges": {"classifiers": {"x": {**GIVEN_JUDGE, "weights": "odd"}}}}
    for changes, text in (
        (
            {"judge": {**GIVEN_JUDGE, "weights": "theirs"}},
            "judge.weights=theirs have 3 outputs, and data.dataset=digits has 10 classes; name weights that "
            "tell all of them, or train the judge.",
        ),
        (
            further,
            "judges.classifiers.x.weights=odd do not fit AmiClassifier: 1 of another shape (first: "
            "blocks.1.0.weight has (4, 4, 5, 5), wants (4, 4, 3, 3)); use the network, width, image size and "
            "defense that they were trained with.",
        ),
    ):
        preflight = Preflight(location)
        for _ in range(2):
            with pytest.raises(StudyError) as caught:
                preflight.resolve(point(changes))
            assert str(caught.value) == text
    Preflight(location).resolve(point({"judge": GIVEN_JUDGE}))


NAMES = tuple(load("digits", Location()).class_names)


def named(folder: Path, state: dict[str, Tensor], *classes: str) -> Location:
    """Return a data location at which weights are staged with names of their outputs."""
    blobs = DirectoryBlobs(folder)
    weights.stage(state, "test", blobs, "theirs", classes or None)
    return Location(blobs)


def test_classes_are_matched_by_the_names_staged_with_the_weights(theirs: Theirs, tmp_path: Path) -> None:
    """Their three outputs are the first private classes of the seeded order, in that order."""
    digits, free = load("digits", Location()), {**GIVEN, "data.class_seed": 0}
    ids = private_classes(digits, Data.model_validate(tiny.BASE["data"]), 3)
    told = [NAMES[one] for one in ids]
    location = named(tmp_path / "a", dict(theirs.state_dict()), *told)
    Preflight(location).resolve(point(GIVEN))  # the seeded order is theirs
    resolved = Preflight(location).resolve(point({**free, "data.class_order": "weights"})).spec
    assert resolved.data.class_order == ids
    assert private_classes(digits, resolved.data, 3) == ids
    listed = Preflight(location).resolve(point({**free, "data.class_order": told})).spec
    assert listed.data.class_order == ids
    one, other = (planned(spec, location) for spec in (resolved, listed))
    assert {name: stage.key for name, stage in one.items()} == {
        name: stage.key for name, stage in other.items()
    }
    _, metrics = left(built(resolved, location, tmp_path / "store", "given"), one["given"])
    assert metrics["target/accuracy"] > 0.9
    wrong = next(place for place in range(3) if told[place] != NAMES[place])
    with pytest.raises(StudyError) as caught:
        Preflight(location).resolve(point({**free, "data.class_order": "staged"}))
    assert str(caught.value) == (
        f"target.weights=theirs tell {told[wrong]} by output {wrong}, and class {wrong} here is "
        f"{NAMES[wrong]}; set data.class_order=weights."
    )


def test_a_drawn_order_is_no_guess_at_unnamed_outputs(theirs: Theirs, tmp_path: Path) -> None:
    """Taken for the order of somebody's outputs it would match each with a random class."""
    location = named(tmp_path, dict(theirs.state_dict()))
    with pytest.raises(StudyError) as caught:
        Preflight(location).resolve(point({"target": FILE}))
    assert str(caught.value) == (
        "data.class_order=seeded is a drawn order, and the outputs of target.weights=theirs have no names; "
        "use staged, list the classes, stage the weights with --classes, or set target.minimum_accuracy."
    )
    for changes in (GIVEN, {"target": FILE, "data.class_seed": 0, "data.class_order": "staged"}):
        Preflight(location).resolve(point(changes))


def test_names_that_are_not_those_of_the_set_or_not_there_are_told(theirs: Theirs, tmp_path: Path) -> None:
    state, free = dict(theirs.state_dict()), {**GIVEN, "data.class_seed": 0, "data.class_order": "weights"}
    cases: list[tuple[str, tuple[str, ...], str]] = [
        (
            "none",
            (),
            "data.class_order=weights needs the names of the outputs of theirs, which were staged without; "
            "stage the weights again with --classes, or list the names here.",
        ),
        (
            "other",
            ("0", "one", "2"),
            "data.class_order names one, which is no class of digits (it has 0, 1, 2, ...); correct the "
            "name or stage the set with that class.",
        ),
        (
            "few",
            NAMES[:2],
            "target.weights=theirs are staged with 2 names and have 3 outputs; stage them under another name "
            "with one for each output.",
        ),
    ]
    for folder, names, text in cases:
        with pytest.raises(StudyError) as caught:
            Preflight(named(tmp_path / folder, state, *names)).resolve(point(free))
        assert str(caught.value) == text

"""Spans modules: README and docs/ match the code: links, commands, make targets, every field of a study.

`python -m tests.test_documentation` rewrites the field tables of docs/studies.md and docs/services.md.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from ray.dashboard.modules.job.cli import submit

from benchmarks.accelerator import __main__ as accelerator
from jobs import doctor, notice, report, runs, stage_data, stage_weights, store, sweep, ui
from orchestrator import config
from orchestrator.api.shipped import find_study
from orchestrator.config import load as study_file
from orchestrator.config import report as report_section
from orchestrator.config import resources, search, service, study
from orchestrator.datasets import Location
from orchestrator.datasets.sources.registry import READERS
from orchestrator.metrics.names import METRICS
from orchestrator.models import CLASSIFIERS
from orchestrator.models.budgets import counted
from orchestrator.models.generator_outlines import PATHS as GENERATOR_PATHS
from orchestrator.sweep.points import expand
from orchestrator.sweep.study_checks import check_report
from orchestrator.sweep.validation import Preflight
from tests import test_red_team

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
STUDIES, SERVICES = ROOT / "docs" / "studies.md", ROOT / "docs" / "services.md"
BEGIN, END = "<!-- fields: written by tests/test_documentation.py -->", "<!-- end of fields -->"
SECTIONS: dict[str, type[config.Spec]] = {
    "The file": study.Study,
    "`search`": search.Search,
    "`search.scheduler`": search.Scheduler,
    "`search.stop`": search.Stop,
    "`resources`": resources.Resources,
    "A value of `resources.stages`": resources.StageResources,
    "`report`": report_section.Report,
    "An entry of `report.printed`": report_section.Printed,
    "An entry of `report.orderings`": report_section.Ordering,
    "`report.delta`": report_section.Delta,
    "An entry of `report.curves`": report_section.RobustnessCurve,
    "An entry of `report.histograms`": report_section.Histogram,
    "`report.costs`": report_section.Costs,
    "A range in `sweep`": search.Range,
    "An axis with `when` and `values` in `sweep`": search.Choices,
    "`base`": config.TrialSpec,
    "`base.data`": config.Data,
    "`base.target`": config.Target,
    "`base.target.pretrain`": config.Pretrain,
    "`base.target.defense`": config.Defense,
    "`base.target.defense.mid`": config.Mid,
    "`base.target.defense.bido`": config.Bido,
    "`base.target.defense.smoothing`": config.Smoothing,
    "`base.target.defense.dp`": config.DpSgd,
    "`base.target.defense.erasing`": config.Erasing,
    "`base.target.defense.loft`": config.Loft,
    "`base.release`": config.Release,
    "`base.release.shield`": config.Shield,
    "`base.auxiliary`": config.Auxiliary,
    "`base.prior`": config.Prior,
    **{f"`base.attack`, `name: {name}`": attack for name, attack in config.ATTACK_SPECS.items()},
    "`base.attack.identity`": config.Augmentation,
    "A value of `base.attack.identity.students`": config.Student,
    "`base.attack.losses`": config.Losses,
    "`base.attack.losses.surrogate`": config.Surrogate,
    "`base.judge`, a value of `base.judges.classifiers`": config.Judge,
    "`base.judges`": config.Judges,
    "`base.judges.recogniser`": config.Recogniser,
    "`base.evaluation`": config.Evaluation,
    "`base.evaluation.networks`": config.PublicNetworks,
    "`base.evaluation.fisher`": config.Fisher,
    "Every `recipe`": config.Recipe,
    "Every `model`": config.Model,
}
GENERATED: dict[Path, dict[str, type[config.Spec]]] = {
    STUDIES: SECTIONS,
    SERVICES: {"The file": service.Service, "`response`": service.Answer, "`asking`": service.Asking},
}
"""Page -> title and model of each part of a file that it documents."""
# Command of the README, comments left out -> the test that runs it or, where that takes minutes, checks it.
HERE, STAGE = "tests/test_documentation.py::test", "tests/jobs/test_stage_data.py::test"
STUDY = "tests/jobs/test_studies.py::test_a_study_runs_and_reports"
WEIGHTS = "tests/jobs/test_stage_weights.py::test_a_library_with_a_network"
RAY = "tests/drills/test_drills.py::test_the_demo_as_a_job_on_four_nodes_equals_the_local_run"
ONE_HOST = "tests/test_cluster_files.py::test_one_host_starts_takes_a_job_and_stops"
VERIFY = "tests/jobs/test_store.py::test_a_store_in_order_verifies_with_exit_code_0"
CELEBA = f"{STAGE}_celeba_without_the_people_of_a_list"
SETTING = "python -m jobs.sweep demo --set target.recipe.epochs=5 --set 'sweep.seed=[0]'"
FOLDER = "python -m jobs.stage_data PHOTOS/ DATASETS/ --name faces --size 64 --channels 1 --min-images 3"
PUBLIC = "python -m jobs.stage_weights torchvision:vgg16_bn DATASETS/ --name vgg16-imagenet --model vgg16"
RED_TEAM = "tests/test_red_team.py::test_a_model_of_others_is_attacked_by_two_commands_in_each_format"
BEST = "tests/jobs/test_runs.py::test_best_leaves_out_what_may_be_no_better_than_nothing"
README_COMMANDS = {
    "make demo": f"{HERE}_targets_run_the_documented_commands",
    "make ui": f"{HERE}_targets_run_the_documented_commands",
    "python -m jobs.sweep demo --plan": f"{HERE}_plan_prints_the_points_and_stops",
    "python -m jobs.sweep jobs/studies/demo.yaml": f"{HERE}_commands_parse",
    "python -m jobs.sweep demo --local": RAY,
    "python -m jobs.sweep demo --scale smoke": f"{HERE}_plan_prints_the_points_and_stops",
    SETTING: f"{HERE}_overrides_are_applied",
    "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=~/.inversion/ray_token": f"{HERE}_commands_parse",
    "export RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265": f"{HERE}_commands_parse",
    "ray job submit --working-dir . -- python -m jobs.sweep STUDY.yaml --store s3://BUCKET/store "
    "--data s3://BUCKET/datasets --tracking-uri http://MLFLOW:5000": RAY,
    "make cluster": ONE_HOST,
    "source runs/one-host/env.sh": ONE_HOST,
    "ray job submit --working-dir . -- python -m jobs.doctor": ONE_HOST,
    "make cluster-stop": ONE_HOST,
    "python -m jobs.store verify --store s3://BUCKET/store": VERIFY,
    "python -m jobs.stage_data mnist:DIR s3://BUCKET/datasets": f"{STAGE}_idx_sets",
    FOLDER: f"{STAGE}_an_image_folder_and_skipping_what_is_no_image",
    PUBLIC: WEIGHTS,
    "python -m jobs.sweep STUDY.yaml --data DATASETS/": f"{HERE}_commands_parse",
    "python -m jobs.sweep tl-dmi-fig-1 --scale smoke": STUDY,
    "python -m jobs.stage_data celeba:DIR DATASETS/ --size 64 --channels 1 --exclude LIST.txt "
    "--split default=1,0,0": CELEBA,
    "python -m jobs.sweep ami-truncation --scale small --data DATASETS/": f"{HERE}_commands_parse",
    "python -m jobs.report ami-truncation --scale small --data DATASETS/": f"{HERE}_commands_parse",
    "python -m jobs.runs best": BEST,
    test_red_team.STAGE: RED_TEAM,
    test_red_team.SWEEP: RED_TEAM,
}


RAY_COMMANDS = [["ray", "job", word] for word in ("list", "logs", "stop")]


def commands(page: Path) -> list[str]:
    """Return the lines of the page's shell blocks: continuations joined, comments left out."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", page.read_text(encoding="ascii"), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [" ".join(re.sub(r"(^|\s)#\s.*", "", line).split()) for line in lines if line.strip()]


def parse(command: str) -> None:
    """Raise an error if the command or one of its options does not exist."""
    words = shlex.split(command)
    if words[:3] == ["python", "-m", "benchmarks.accelerator"]:
        accelerator.parser().parse_args(words[3:])
    elif words[:2] == ["python", "-m"]:
        _parse_job(words[2], words[3:])
    elif words[0] == "inversion":
        _parse_job(f"jobs.{words[1].replace('-', '_')}", words[2:])
    elif words[:3] == ["ray", "job", "submit"]:
        context = submit.make_context("submit", words[3:])
        entrypoint = list(context.params["entrypoint"])
        assert (ROOT / context.params["working_dir"] / "jobs").is_dir()
        assert entrypoint[:2] == ["python", "-m"]
        _parse_job(entrypoint[2], entrypoint[3:])
    elif words[0] == "make":
        assert words[1:]
        assert set(words[1:]) <= targets()
    elif words[0].startswith("cluster/"):
        script = (ROOT / words[0]).read_text(encoding="ascii")
        assert f"\n{words[1]}() {{" in script
    else:
        assert words[0] in ("export", "source") or words[:3] in RAY_COMMANDS, command


def _parse_job(module: str, arguments: list[str]) -> None:
    apps = {
        "jobs.sweep": sweep.app,
        "jobs.report": report.app,
        "jobs.stage_data": stage_data.app,
        "jobs.stage_weights": stage_weights.app,
        "jobs.store": store.app,
        "jobs.runs": runs.app,
        "jobs.doctor": doctor.app,
        "jobs.notice": notice.app,
        "jobs.ui": ui.app,
    }
    command = typer.main.get_command(apps[module])
    if isinstance(command, click.Group):
        name, command, arguments = command.resolve_command(command.make_context(module, arguments), arguments)
        assert command is not None, f"{module} has no command {name}"
    context = command.make_context(module, arguments)
    name = str(context.params.get("study"))
    if module in ("jobs.sweep", "jobs.report") and not name.startswith("STUDY"):
        chosen = study_file.read_study(
            find_study(str(ROOT / name) if "/" in name else name),
            overrides=context.params["overrides"],
            scale=context.params["scale"],
        )
        assert chosen.study
    if module == "jobs.stage_data" and ":" in context.params["source"]:
        assert context.params["source"].partition(":")[0] in READERS
    if module == "jobs.stage_weights":
        assert context.params["model"] in ("", *CLASSIFIERS, *GENERATOR_PATHS)


def targets() -> set[str]:
    """Return the Makefile's targets."""
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="ascii"), re.MULTILINE))


def field_tables(sections: Mapping[str, type[config.Spec]]) -> str:
    """Return one table for each part of a file, from the models that validate it."""
    parts = []
    for title, model in sections.items():
        rows = [f"### {title}", "", "| field | value | default | meaning |", "| --- | --- | --- | --- |"]
        schema = model.model_json_schema()
        required = schema.get("required", [])
        for name, part in schema["properties"].items():
            is_own = "$ref" in part  # its defaults are in its own table
            default = (
                "required" if name in required else "its own" if is_own else _default(part.get("default"))
            )
            meaning = " ".join(part.get("description", "").replace("|", "\\|").split())
            rows.append(f"| `{name}` | {_kind(part)} | {default} | {meaning} |".replace("|  |", "| |"))
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def _default(value: Any) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {part}" for name, part in value.items()) or "none"
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else _word(value)


def _word(value: Any) -> str:
    """Return a value as a file has it: true and false are written in lower case."""
    return value if isinstance(value, str) else str(value).lower()


def _kind(part: dict[str, Any]) -> str:
    if "$ref" in part:
        return f"a mapping ({part['$ref'].rsplit('/', 1)[-1]})"
    if "anyOf" in part:
        return " or ".join(_kind(one) for one in part["anyOf"])
    if "enum" in part:
        return " or ".join(f"`{value}`" for value in part["enum"])
    if part.get("type") == "array":
        return f"a list of {_kind(part['items'])}" if part.get("items") else "a list"
    if part.get("type") == "object":
        values = part.get("additionalProperties")
        return f"a mapping of {_kind(values)}" if isinstance(values, dict) and values else "a mapping"
    if "oneOf" in part:
        return " or ".join(_kind(one) for one in part["oneOf"])
    if "const" in part:
        return f"`{part['const']}`"
    words = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    names = {"boolean": "`true` or `false`", "null": "null", "string": "text", None: "anything"}
    name = names.get(part.get("type"), part.get("type"))
    return " ".join([str(name), *(f"{sign} {part[key]:g}" for key, sign in words.items() if key in part)])


def anchors(page: Path) -> set[str]:
    """Return the anchors of the page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="ascii"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links() -> Iterator[tuple[Path, str]]:
    """Yield every relative link of every page."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="ascii")):
            if "://" not in target:
                yield page, target


@pytest.mark.parametrize(("page", "target"), list(links()), ids=lambda value: getattr(value, "name", value))
def test_links_lead_somewhere(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    found = (page.parent / path).resolve() if path else page
    assert found.exists(), f"{page.name} links to {target}, which does not exist"
    assert not anchor or anchor in anchors(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_folders_in_backticks_exist(page: Path) -> None:
    text = page.read_text(encoding="ascii")
    whole = re.findall(r"`((?:orchestrator|jobs|tests|cluster|benchmarks|docs)/[a-z0-9_./-]+)`", text)
    assert [path for path in whole if not (ROOT / path).exists()] == []
    glossary = text.partition("## Glossary")[2]  # its files are those of orchestrator/
    inside = re.findall(r"`([a-z_0-9/]+\.py)`", glossary)
    assert [path for path in inside if not (ROOT / "orchestrator" / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page: Path) -> None:
    for command in commands(page):
        parse(command)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("python -m jobs.sweep demo --cheap", "No such option"),
        ("python -m jobs.sweep", "Missing parameter: study"),
        ("ray job submit --workdir . -- python -m jobs.sweep demo", "No such option"),
        ("python -m jobs.sweep demo --scale tiny", "--scale tiny is not in"),
    ],
)
def test_a_wrong_command_fails(command: str, reason: str) -> None:
    with pytest.raises(Exception, match=reason):  # typer and Ray have a UsageError each
        parse(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_wraps_at_120_columns(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="ascii"), flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in text.splitlines() if not line.strip().startswith(("|", "!"))]
    assert [line for line in lines if len(line) > 120] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_merge_is_left_unfinished(page: Path) -> None:
    assert not re.findall(r"^(?:<{7}|={7}|>{7})(?: .*)?$", page.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_blocks_of_the_python_page_run_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("INVERSION_STORE", "INVERSION_DATA", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "python.md").read_text(encoding="ascii")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert len(blocks) == page.count("```python")
    assert "4 trials, " in capsys.readouterr().out
    assert names["results"].table["status"].tolist() == ["finished"] * 4


def test_every_readme_command_has_a_test() -> None:
    assert set(commands(PAGES[0])) == set(README_COMMANDS)
    for where in README_COMMANDS.values():
        file, _, test = where.partition("::")
        assert f"def {test}(" in (ROOT / file).read_text(encoding="ascii"), where


def test_targets_run_the_documented_commands() -> None:
    for target, wanted in (("demo", "-m jobs.sweep jobs/studies/demo.yaml"), ("ui", "-m jobs.ui")):
        printed = subprocess.run(
            ["make", "--no-print-directory", "--dry-run", target],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert printed.splitlines()[-1].endswith(wanted)
    named = set(re.findall(r"`make ([a-z]+)`", PAGES[0].read_text(encoding="ascii")))
    assert {"demo", "test", "check"} <= named <= targets()


def test_plan_prints_the_points_and_stops(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "jobs.sweep",
        "demo",
        "--scale",
        "smoke",
        "--plan",
        "--out",
        str(tmp_path),
    ]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "study demo: 12 points" in ran.stdout
    assert not list(tmp_path.rglob("manifest.json"))
    assert not (tmp_path / "mlflow.db").exists()


def test_overrides_are_applied() -> None:
    chosen = study_file.read_study(
        find_study("demo"), overrides=["target.recipe.epochs=5", "sweep.seed=[0]"], scale=None
    )
    assert chosen.base["target"]["recipe"]["epochs"] == 5
    assert chosen.axes()["seed"] == [0]


def test_readme_is_short_and_starts_with_the_two_commands() -> None:
    lines = PAGES[0].read_text(encoding="ascii").splitlines()
    assert len(lines) <= 200
    own = lines[lines.index("## Attack a model you have") :]
    assert next(place for place, line in enumerate(own[1:]) if line.startswith("## ")) <= 12
    for command in ("make demo", "make ui"):
        assert any(line.startswith(command) for line in lines[:29])


def test_readme_says_how_many_points_the_demo_has() -> None:
    points, _ = expand(study_file.read_study(find_study("demo")))
    assert f"The demo has {len(points)} points" in PAGES[0].read_text(encoding="ascii")


def test_readme_names_every_study_metric_and_file() -> None:
    text = PAGES[0].read_text(encoding="ascii")
    for path in (ROOT / "jobs" / "studies").glob("*.yaml"):
        if path.name.startswith(("test-", "tl-dmi-")):  # a test that submits jobs puts its study there
            continue
        assert f"(jobs/studies/{path.name})" in text
    assert text.count("(docs/studies.md#tl-dmi)") == 1  # where each of its studies has a row
    for metric in METRICS.values():
        assert not metric.unit or f"/{metric.name}" in text
    tree = text.partition("## Files")[2].partition("```")[2].partition("```")[0]
    named = set(re.findall(r"([a-z_]+)(?:\.py|/)", tree))
    modules = {path.stem for path in (ROOT / "orchestrator").glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in (ROOT / "orchestrator").glob("*/__init__.py")}
    assert modules | packages | {"jobs", "cluster", "tests", "benchmarks", "docs"} <= named


SHIPPED = sorted(path.stem for path in (ROOT / "jobs" / "studies").glob("*.yaml") if "test-" not in path.name)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_study_plans_small_enough_for_a_test_and_needs_no_data_there(name: str) -> None:
    chosen = study_file.read_study(find_study(name), scale="smoke")
    check_report(chosen)
    points, dropped = expand(chosen)
    assert len(points) <= 16
    resolved = Preflight(Location()).resolve_all(points)  # built-in data sets only
    assert [point.index for point in resolved] == list(range(len(points)))
    assert all("target.classes" in one.reason for one in dropped)  # m > k


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith("ami-")])
def test_every_study_has_the_papers_scale_and_a_small_one(name: str) -> None:
    for scale, width in ((None, 1.0), ("small", None)):
        chosen = study_file.read_study(find_study(name), scale=scale)
        check_report(chosen)
        points, _ = expand(chosen)
        assert {seed for point in points for seed in [point.spec.target.seed]} == {0, 1, 2}
        widths = {point.spec.target.model.width for point in points}
        assert widths == {width} if width else max(widths) < 1
    assert chosen.report.orderings


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith("tl-dmi-")])
def test_every_study_of_tl_dmi_has_the_papers_scale_and_a_small_one(name: str) -> None:
    for scale in (None, "small"):
        chosen = study_file.read_study(find_study(name), scale=scale)
        check_report(chosen)
        points, dropped = expand(chosen)
        assert not dropped
        if scale is None:
            assert {point.spec.target.seed for point in points} == {0, 1, 2}
            assert {point.spec.target.model.width for point in points} == {1.0}


def test_every_figure_and_table_of_ami_has_a_row() -> None:
    rows = STUDIES.read_text(encoding="ascii").partition("## The studies")[2].partition("\n## ")[0]
    named = {
        number for text in re.findall(r"Figures? ([0-9, and]+)", rows) for number in re.findall(r"\d+", text)
    }
    assert named >= {str(number) for number in range(1, 17)}
    assert "Table I " in rows
    assert "Table II" in rows
    for name in SHIPPED:
        assert f"`{name}`" in rows


def test_every_figure_and_table_of_tl_dmi_has_a_row() -> None:
    section = STUDIES.read_text(encoding="ascii").partition("### TL-DMI\n")[2].partition("\n### ")[0]
    wanted = {f"Table {number}": f"tl-dmi-table-{number}" for number in range(1, 14)}
    wanted |= {f"Figure {number}": f"tl-dmi-fig-{number}" for number in range(1, 8)}
    rows = dict(
        re.findall(r"^\| ((?:Table|Figure) \d+) \| [^|]+ \| `([a-z0-9-]+)` \|", section, re.MULTILINE)
    )
    assert rows == wanted
    # All attacks at once; priors; defenses; equal accuracy; many people; a prior of the target's classes.
    names = ("attacks", "priors", "defenses", "equal-accuracy", "people", "plg-mi")
    ours = {f"tl-dmi-{name}" for name in names}
    assert {name for name in SHIPPED if name.startswith("tl-dmi-")} == {*wanted.values(), *ours}
    assert all(f"`{name}`" in section for name in ours)


def test_cut_points_have_the_counted_parameters() -> None:
    section = (
        STUDIES.read_text(encoding="ascii").partition("### Frozen-layer budget\n")[2].partition("\n### ")[0]
    )
    rows = re.findall(r"^\| `([a-z0-9_-]+)` \| (\d+) \| (\d+) \| (.+) \|$", section, re.MULTILINE)
    assert {name for name, *_ in rows} == set(CLASSIFIERS)
    for name, side, classes, cuts in rows:
        channels = 1 if name.startswith("ami-") else 3
        shapes: dict[str, Any] = {"classes": int(classes), "channels": channels, "image_size": int(side)}
        for cut, millions in re.findall(r"`([A-Za-z0-9_-]+)` ([\d.]+\d)", cuts):
            frozen = counted(config.Model(name=name), cut, **shapes)
            assert f"{frozen.trainable / 1e6:.3f}" == millions, (name, cut)


@pytest.mark.parametrize("page", GENERATED, ids=lambda page: page.name)
def test_every_field_is_documented(page: Path) -> None:
    written = page.read_text(encoding="ascii").partition(BEGIN)[2].partition(END)[0].strip()
    assert written == field_tables(GENERATED[page]), "run python -m tests.test_documentation and look"


def test_every_part_of_a_study_has_a_table() -> None:
    models = {
        model
        for module in (config, report_section, resources, search, study)
        for model in vars(module).values()
        if isinstance(model, type) and issubclass(model, config.Spec)
    } - {config.Spec, config.AttackSpec}
    assert models == set(SECTIONS.values())


def test_the_example_is_a_study(tmp_path: Path) -> None:
    example = re.findall(
        r"^```yaml\n(.*?)^```$", STUDIES.read_text(encoding="ascii"), re.MULTILINE | re.DOTALL
    )
    file = tmp_path / "study.yaml"
    file.write_text(example[0], encoding="ascii")
    points, dropped = expand(study_file.read_study(file))
    assert (len(points), dropped) == (18, [])
    assert len(expand(study_file.read_study(file, scale="smoke"))[0]) == 6


def test_studies_page_has_the_names() -> None:
    text = STUDIES.read_text(encoding="ascii")
    for name in (*CLASSIFIERS, *study.SHORT_NAMES.values(), *study.SHORTHANDS):
        assert f"`{name}`" in text, name


def main() -> None:
    """Rewrite the field tables."""
    for page, sections in GENERATED.items():
        head, _, rest = page.read_text(encoding="ascii").partition(BEGIN)
        text = f"{head}{BEGIN}\n\n{field_tables(sections)}\n\n{END}{rest.partition(END)[2]}"
        page.write_text(text, encoding="ascii")


if __name__ == "__main__":
    main()

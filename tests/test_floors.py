"""Spans modules: imports between floors, modules that start without torch, words that no file holds."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from orchestrator.stages.graph import STAGES

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for folder in ("orchestrator", "jobs") for path in (ROOT / folder).rglob("*.py"))
OUTSIDE = set(sys.stdlib_module_names) | {"orchestrator", "jobs", "tests"}

FLOORS = {
    "config": 0,
    "store": 1,
    "threat": 2,
    "datasets": 2,
    "models": 2,
    "training": 2,
    "attacks": 3,
    "defenses": 3,
    "metrics": 3,
    "analyses": 4,
    "stages": 5,
    "sweep": 6,
    "report": 7,
    "runtime": 7,
    "api": 8,
}
"""Room of `orchestrator/` -> its floor; `jobs/` is the ninth. A module imports from its room or below."""
PACKAGES = {
    0: {"pydantic", "yaml"},
    2: {"torch", "torchvision", "timm", "numpy", "PIL", "safetensors", "onnx", "onnxruntime", "urllib3"},
    3: {"torchmetrics", "opacus", "scipy", "matplotlib"},
    6: {"pandas"},
    7: {
        "jinja2",
        "markupsafe",
        "ray",
        "optuna",
        "mlflow",
        "boto3",
        "botocore",
        "psutil",
        "pyarrow",
        "sklearn",
    },
}
"""Third-party packages that each floor adds to those below it."""
INFRASTRUCTURE = {"ray", "optuna", "mlflow", "boto3", "botocore"}


def name_of(path: Path) -> str:
    """Return a source file's module name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of everything that a source file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str:
    """Return the room of a module of the library."""
    room = module.split(".")[1]
    assert room in FLOORS, f"{module} is in no room; add it to FLOORS"
    return room


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_imports_from_its_room_or_from_a_lower_floor(path: Path) -> None:
    module = name_of(path)
    if module == "orchestrator" or module.startswith("jobs"):
        return
    room = room_of(module)
    floor = FLOORS[room]
    allowed = set.union(*(packages for least, packages in PACKAGES.items() if least <= floor))
    for name in imports(path):
        package = name.split(".")[0]
        assert package not in ("jobs", "tests"), f"{module} imports {name}"
        if package == "orchestrator" and name not in ("orchestrator.__version__", f"orchestrator.{room}"):
            other = room_of(name)
            assert other == room or FLOORS[other] < floor, f"{module} (floor {floor}) imports {name}"
        elif package not in OUTSIDE:
            assert package in allowed, f"{module} (floor {floor}) imports {package}"


def test_the_library_has_few_rooms() -> None:
    entries = {path.name for path in (ROOT / "orchestrator").iterdir() if path.name != "__pycache__"}
    assert {name.removesuffix(".py") for name in entries} == {*FLOORS, "__init__"}
    assert len(entries) <= 16


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = {name_of(path): path for path in SOURCES}
    arrows = {
        module: {
            other
            for name in imports(path)
            if (other := name if name in known else name.rpartition(".")[0]) in known and other != module
        }
        for module, path in known.items()
    }
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_infrastructure_stays_at_the_edge(path: Path) -> None:
    module = name_of(path)
    packages = {name.split(".")[0] for name in imports(path)}
    if not module.startswith(("orchestrator.runtime", "jobs")):
        assert packages & INFRASTRUCTURE == set()
    if module.startswith("jobs"):  # what is submitted asks the runtime
        assert packages & (INFRASTRUCTURE - {"mlflow"}) == set()


@pytest.mark.parametrize(
    ("package", "unseen"),
    [("attacks", ("metrics", "defenses")), ("models", ("attacks",)), ("metrics", ("attacks", "defenses"))],
)
def test_an_attack_cannot_see_its_judge(package: str, unseen: tuple[str, ...]) -> None:
    for path in (ROOT / "orchestrator" / package).rglob("*.py"):
        for name in imports(path):
            assert not name.startswith(tuple(f"orchestrator.{other}" for other in unseen)), (path, name)


SHARED_STAGES = {
    "cost",
    "graph",
    "io",
    "kept",
    "runner",
    "stage",
    "table",
    "uses",
    "work",
    "workload",
    "images",
    "networks",
    "target_model",
    "measuring",
    "similarity",
}
"""Files of `stages/` that several stages import."""


def test_stages_never_import_each_other() -> None:
    files = {path.stem for path in (ROOT / "orchestrator" / "stages").glob("*.py")} - {"__init__"}
    stages = {kind.path.rpartition(".")[2] for kind in STAGES.values()}
    assert files == SHARED_STAGES | stages
    assert not SHARED_STAGES & stages
    for path in (ROOT / "orchestrator").rglob("*.py"):
        for name in imports(path):
            room, _, rest = name.removeprefix("orchestrator.").partition(".")
            assert room != "stages" or rest.partition(".")[0] not in stages, f"{path} imports {name}"


def test_reports_read_the_store_and_no_stage() -> None:
    """A report is made from records and artifacts; which stages exist is checked in `sweep/validation`."""
    for path in (ROOT / "orchestrator" / "report").rglob("*.py"):
        assert not [name for name in imports(path) if name.startswith("orchestrator.stages")], path


LIGHT = [
    "orchestrator",
    "orchestrator.api.study",
    "orchestrator.stages.graph",
    "orchestrator.config.study",
    "orchestrator.sweep.trial",
    "orchestrator.store.artifacts",
    "orchestrator.store.journal",
    "orchestrator.store.leases",
    "orchestrator.runtime.open_store",
    "orchestrator.models.budgets",
    "orchestrator.sweep.validation",
    "orchestrator.sweep.apart",
    "orchestrator.sweep.ledger",
    "orchestrator.runtime.search",
    "orchestrator.runtime.ray.tune",
    "orchestrator.runtime.ray.groups",
]
"""Modules of trial drivers and of plans; tests/jobs/test_imports.py holds what each command may import."""

PLAIN_STAGES = sorted(kind.path for kind in STAGES.values() if kind.path != "orchestrator.stages.fisher")
WORKER = [
    "orchestrator.runtime.ray.worker",
    "orchestrator.models.vgg",
    "orchestrator.models.ir",
    *PLAIN_STAGES,
]
"""Modules of a group's workers in a study without a library's networks; Fisher profiles draw a figure."""


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        (LIGHT, ("torch", "torchvision", "sklearn", "mlflow", "matplotlib")),
        (
            WORKER,
            ("torchvision", "torchmetrics", "timm", "opacus", "scipy", "sklearn", "mlflow", "matplotlib"),
        ),
    ],
    ids=["trial drivers without torch", "workers without libraries of networks and metrics"],
)
def test_processes_start_with_few_packages(modules: list[str], heavy: tuple[str, ...]) -> None:
    code = (
        "import importlib, sys\n"
        f"for name in {modules}:\n"
        "    importlib.import_module(name)\n"
        f"    loaded = set({heavy}) & set(sys.modules)\n"
        "    assert not loaded, f'{name} loads {loaded}'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr


def committed() -> list[Path]:
    """Return the files that git knows, or skip outside a clone."""
    done = subprocess.run(["git", "ls-files", "-z"], capture_output=True, cwd=ROOT, timeout=60)
    if done.returncode:
        pytest.skip("this is no git clone")
    return [ROOT / name for name in done.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


# In pieces, so that this file does not hold what it looks for.
REGISTRIES = ["pypi" + ".org", "python" + "hosted.org", "download.pytorch" + ".org", "arti" + "factory"]
MACHINES = ["/ho" + "me/", "/Us" + "ers/", "/wo" + "rk/", "/ro" + "ot/"]
# Home folders inside public machine and container images.
CLUSTER_USERS = ["/ho" + "me/ray", "/ho" + "me/ubuntu"]


def test_no_committed_text_names_registries_or_machines() -> None:
    found = []
    for path in (path for path in committed() if path.suffix != ".png"):
        text = path.read_text(encoding="utf-8")
        for user in CLUSTER_USERS:
            text = text.replace(user, "")
        found += [(str(path.relative_to(ROOT)), word) for word in REGISTRIES + MACHINES if word in text]
    assert found == []


LINUX_ONLY = {
    *("sched_getaffinity", "sched_setaffinity", "memfd_create", "copy_file_range", "splice", "eventfd"),
    *("pidfd_open", "posix_fadvise", "posix_fallocate", "getrandom", "getxattr", "setxattr", "fdatasync"),
    *("O_DIRECT", "O_TMPFILE", "O_NOATIME", "MAP_POPULATE", "RTLD_DEEPBIND", "sigtimedwait", "epoll"),
}
"""Functions and constants of the standard library that other systems with Python lack, macOS above all."""
READ_IF_THERE = {
    "orchestrator.stages.cost": ("/proc/self",),
    "orchestrator.runtime.doctor.gpu": ("/proc/driver",),
    "orchestrator.runtime.matrix_units": ("/proc/cpuinfo",),
    "orchestrator.store.directory": ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"),
}
"""Modules that read files of Linux's kernel, and do without them where they are not."""


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_is_used_that_linux_alone_has(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert used & LINUX_ONLY == set()
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    kernel = [
        text for text in texts if isinstance(text, str) and text.startswith(("/proc", "/sys", "/dev/shm"))
    ]
    allowed = READ_IF_THERE.get(name_of(path), ())
    assert [text for text in kernel if not text.startswith(allowed)] == []


def test_sources_are_ascii_and_of_readable_size() -> None:
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert text.isascii(), path
        assert len(text.splitlines()) <= 500, path

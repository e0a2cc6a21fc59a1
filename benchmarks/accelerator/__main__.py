"""Benchmark: the path of an accelerator, on a machine without Ray, MLflow and network.

`python -m benchmarks.accelerator` runs every part (`parts.py`) in a process of its own, within its share of
the time. What a part found out is written as it ends, as lines of `results.jsonl`, and all of it in the end
as `results.md`. A part that lacks a module or time, or that fails, is a line with its reason.

A bare machine needs the wheels of torch, torchvision, numpy, pydantic, PyYAML, safetensors, pillow,
scikit-learn and urllib3; for the demo and the attacks also pandas, torchmetrics, matplotlib and psutil, for
the tests pytest; and those that these require. `--check` lists what is missing or of another version.
"""

import argparse
import importlib
import importlib.util
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.accelerator.parts import PARTS

ROOT = Path(__file__).resolve().parents[2]
LEAST_SECONDS = 5.0
"""A part with less is not begun: torch alone takes that to import on a cold disk."""
ENDING_SECONDS = 2.0  # of what a part is given, to end by itself before it is killed


OUT = "folder of the results, any that can be written; default: runs/accelerator below the current one"
CHECK = (
    "print missing modules and versions that pyproject.toml does not allow, then stop; 1 if one is missing"
)


def main() -> int:
    """Run the parts; return 1 if one of them failed, or if a check finds a module missing."""
    arguments = parser().parse_args()
    if arguments.part:
        run_here(arguments)
        return 0
    deadline = time.monotonic() + 60.0 * arguments.minutes
    names = arguments.only or list(PARTS)
    is_complete = check(names)
    if arguments.check:
        return int(not is_complete)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / "results.jsonl").open("w", encoding="utf-8") as lines:
        records = [{"part": "machine", **machine(arguments)}]
        _write(lines, records)
        for place, name in enumerate(names):
            found = part_records(name, names[place:], deadline, arguments)
            _write(lines, found)
            records += found
    (arguments.out / "results.md").write_text(markdown(records), encoding="utf-8")
    print((arguments.out / "results.md").read_text(encoding="utf-8"))
    return int(any(record.get("status") == "failed" for record in records))


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.accelerator", description=__doc__)
    made.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    made.add_argument("--minutes", type=float, default=8.0, help="of all parts together; default: 8")
    made.add_argument("--out", type=Path, default=Path("runs/accelerator"), help=OUT)
    made.add_argument("--only", nargs="+", choices=list(PARTS), help="these parts alone")
    made.add_argument("--tiny", action="store_true", help="small networks: see that everything runs")
    made.add_argument("--check", action="store_true", help=CHECK)
    made.add_argument("--part", nargs=2, metavar=("NAME", "DEADLINE"), help=argparse.SUPPRESS)
    return made


def is_installed(module: str) -> bool:
    """Return whether a module can be found, without importing it."""
    return importlib.util.find_spec(module) is not None


def check(names: Sequence[str]) -> bool:
    """Print the modules that parts lack and the versions that `pyproject.toml` does not allow; return whether
    no module is missing."""
    needed = dict.fromkeys(module for name in names for module in PARTS[name].needs)
    missing = [module for module in needed if not is_installed(module)]
    print(f"missing modules: {' '.join(missing)}" if missing else "all modules are installed")
    wrong = mismatches([module for module in needed if module not in missing])
    print("\n".join(wrong) if wrong else "all versions are as pyproject.toml requires", flush=True)
    return not missing


def mismatches(modules: Sequence[str]) -> list[str]:
    """Return a line for each of some installed modules whose version `pyproject.toml` does not allow."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    parts = [re.split(r"(?=[<>=!~])|\[.*\]", one, maxsplit=1) for one in listed]
    allowed = {name.strip().lower(): "".join(bounds) for name, *bounds in parts}
    providers = metadata.packages_distributions()
    names = dict.fromkeys(one.lower() for module in modules for one in providers.get(module, []))
    versions = {name: metadata.version(name) for name in names if name in allowed}
    return [
        f"{name}={version} is not {allowed[name]}; install one that is before figures are compared"
        for name, version in versions.items()
        if not is_allowed(version, allowed[name])
    ]


def is_allowed(version: str, bounds: str) -> bool:
    """Return whether a version lies within bounds such as `>=2.14,<2.16`: packaging may not be here."""
    for sign, bound in re.findall(r"(>=|<)([\d.]+)", bounds):
        have, want = (tuple(map(int, re.findall(r"\d+", one.partition("+")[0]))) for one in (version, bound))
        if (have < want) if sign == ">=" else (have >= want):
            return False
    return True


def machine(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Return the device, the libraries and the date, without importing torch here."""
    probe = (
        "import json, torch; cuda = torch.cuda.is_available(); print(json.dumps({"
        "'torch': torch.__version__, 'cuda': torch.version.cuda, 'accelerators': torch.cuda.device_count(), "
        "'device': torch.cuda.get_device_name() if cuda else 'none'}))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    about = json.loads(done.stdout) if done.returncode == 0 else {"torch": "does not load"}
    date = time.strftime("%Y-%m-%d", time.gmtime())
    cpu = f"{os.cpu_count()} cores, {platform.machine()}"
    return {"date": date, "cpu": cpu, **about, "asked": arguments.device, "tiny": arguments.tiny}


def part_records(
    name: str, ahead: Sequence[str], deadline: float, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Run a part in its own process; return its records, the last of which has its status."""
    part = PARTS[name]
    lacking = [module for module in part.needs if not is_installed(module)]
    left = deadline - time.monotonic()
    seconds = left * part.share / sum(PARTS[one].share for one in ahead)
    if lacking or seconds < LEAST_SECONDS:
        reason = f"needs {' '.join(lacking)}" if lacking else f"{seconds:.0f} s are left for it"
        return [{"part": name, "status": "skipped", "reason": reason}]
    command = [sys.executable, "-m", "benchmarks.accelerator", "--device", arguments.device]
    begun = time.monotonic()  # of one clock for all processes: the part's imports are in its time
    command += ["--tiny"] * arguments.tiny + ["--part", name, str(begun + seconds - ENDING_SECONDS)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    status, reason = "done", ""
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its own processes too
        output, errors = process.communicate()
        status, reason = "cut off", f"took more than its {seconds:.0f} s"
    if process.returncode and status == "done":
        status, reason = "failed", errors.strip().rpartition("\n")[2]
    found = [{"part": name, **json.loads(line)} for line in output.splitlines() if line.startswith("{")]
    print(f"{name}: {status} {reason}", flush=True)
    end = {"part": name, "status": status, "reason": reason, "seconds": time.monotonic() - begun}
    return [*found, end]


def run_here(arguments: argparse.Namespace) -> None:
    """Run a part in this process; print each record as a line."""
    import torch  # here: the process that waits for parts needs none

    from benchmarks.accelerator.context import Context
    from orchestrator.training.kernels import use_profile

    use_profile(1)  # deterministic kernels, as in a sweep
    name, deadline = arguments.part
    context = Context(torch.device(arguments.device), float(deadline), is_tiny=arguments.tiny)
    module, _, function = PARTS[name].function.partition(":")
    part = getattr(importlib.import_module(f"benchmarks.accelerator.{module}"), function)
    for record in part(context):
        print(json.dumps(record), flush=True)


def _write(lines: Any, records: Iterable[Mapping[str, Any]]) -> None:
    for record in records:
        lines.write(json.dumps(record) + "\n")
    lines.flush()


def markdown(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the records as one table for each part, with the columns that they have."""
    text = ["# Accelerator", ""]
    for part in dict.fromkeys(str(record["part"]) for record in records):
        own = [record for record in records if record["part"] == part]
        rows = [record for record in own if "status" not in record]
        ends = [record for record in own if "status" in record]
        text += [f"## {part}", ""]
        text += [f"{end['status']} {end['reason']}".strip() + "\n" for end in ends]
        columns = list(dict.fromkeys(name for record in rows for name in record if name != "part"))
        if columns:
            text += [_line(columns), _line(["---"] * len(columns))]
            text += [_line([_shown(record.get(name, "")) for name in columns]) for record in rows]
            text.append("")
    return "\n".join(text)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/")


if __name__ == "__main__":
    sys.exit(main())

"""Matrix units for bfloat16 of this machine: the processor's flags, the accelerators' compute capability.

Neither torch nor CUDA is started: a plan asks this, and a task on each node of a cluster.
"""

import shutil
import subprocess
from pathlib import Path

from orchestrator.sweep.precision import Units

CPUINFO = Path("/proc/cpuinfo")

FLAGS = ("amx_bf16", "avx512_bf16")
"""Of processors that multiply bfloat16; others convert every number."""

LEAST_CAPABILITY = 8.0
"""Compute capability from which on accelerators multiply bfloat16, of Ampere."""

QUERY = ("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")


def units_here(device: str) -> Units:
    """Return what this machine has of a kind of device, `cpu` or `cuda`."""
    return accelerator_units(_capabilities()) if device == "cuda" else processor_units(_cpuinfo())


def processor_units(cpuinfo: str) -> Units:
    """Return what a processor has, of the text of /proc/cpuinfo; empty on systems without it."""
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    flags = next((words.split() for name, _, words in lines if name.strip() == "flags"), [])
    present = [flag for flag in FLAGS if flag in flags]
    return Units(bool(present), " and ".join(present) or f"neither {' nor '.join(FLAGS)}")


def accelerator_units(capabilities: str) -> Units:
    """Return what the oldest of some accelerators has, of a line for each with its compute capability."""
    each = [float(word) for word in capabilities.split() if word.replace(".", "", 1).isdecimal()]
    if not each:
        return Units(False, f"{QUERY[0]} lists no accelerator")
    return Units(min(each) >= LEAST_CAPABILITY, f"compute capability {min(each):.1f}")


def _cpuinfo() -> str:
    return CPUINFO.read_text(encoding="utf-8", errors="replace") if CPUINFO.is_file() else ""


def _capabilities() -> str:
    """Return what the driver's own tool prints, nothing where there is none."""
    if shutil.which(QUERY[0]) is None:
        return ""
    done = subprocess.run(QUERY, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout if done.returncode == 0 else ""

"""GPUs as torch sees them, and the NVIDIA driver, which must be new enough for the CUDA that torch brings.

`facts` imports nothing of the project: it also runs on nodes without it, and here as a process of its own.
"""

import ctypes
import json
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

# CUDA's major version -> its oldest driver: NVIDIA, CUDA Compatibility, Minor Version Compatibility, Table 1.
DRIVERS = {11: 450, 12: 525, 13: 580}
_VERSION_FILE = Path("/proc/driver/nvidia/version")


def facts() -> dict[str, Any]:
    """Return torch's CUDA, the GPUs that it sees, the driver's version and the newest CUDA of the driver."""
    driver, driver_cuda = "", 0
    if _VERSION_FILE.is_file() and (
        found := re.search(r"Module.*?\s(\d{3,}[\d.]*)", _VERSION_FILE.read_text())
    ):
        driver = found[1]
    try:
        version = ctypes.c_int()
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
        driver_cuda = version.value // 1000
    except OSError:  # no driver, or a container without NVIDIA's runtime
        pass
    torch = import_module("torch")
    count = torch.cuda.device_count()
    names = sorted({torch.cuda.get_device_name(index) for index in range(count)})
    return {
        "cuda": torch.version.cuda or "",
        "count": count,
        "names": names,
        "driver": driver,
        "driver_cuda": driver_cuda,
    }


def driver_fault(found: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return what is wrong with a machine's driver and the way out; None if it has none, or one that fits."""
    major = int(found["cuda"].partition(".")[0] or 0)
    needed = DRIVERS.get(major, 0)
    if found["driver_cuda"]:  # of the library in use: right also for NVIDIA's compatibility package
        is_old = found["driver_cuda"] < major
    else:
        is_old = bool(found["driver"]) and int(found["driver"].partition(".")[0]) < needed
    if not is_old:
        return None
    driver = f"NVIDIA driver {found['driver']}" if found["driver"] else "the NVIDIA driver"
    ends = f" (CUDA {found['driver_cuda']})" if found["driver_cuda"] else ""
    fix = f"install driver {needed} or later there" if needed else "install a newer driver there"
    return f"{driver}{ends} is too old for torch's CUDA {found['cuda']}", fix


if __name__ == "__main__":
    print(json.dumps(facts()))

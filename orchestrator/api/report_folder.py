"""Where a report goes on this machine: one folder for one sweep, without files of another one.

`runs/STUDY` is the study as its file has it, `runs/STUDY.SCALE` one of its scales. Overrides that make
another sweep add the start of its key, as in `runs/STUDY.SCALE.1a2b3c4d`: the full run's report is safe.
"""

import re
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

from orchestrator.config.load import as_written
from orchestrator.config.study import Study

OURS = (
    "report.html",
    "importance.csv",
    "study.yaml",
    "note.md",
    "warnings.csv",
    "results.*",
    "summary.*",
    "bounds.*",
    "comparison.*",
    "judges.*",
    "orderings.*",
    "delta.*",
    "variance.*",
    "costs.*",
    "forecast.*",
    "pareto.csv",
    "figure.png",
    "heatmap-*.png",
    "scatter-*.png",
    "curve-*.*",
    "equal-*.*",
    "histogram-*.*",
)
"""Names of every file that a report may have; others in its folder are the user's."""

KEY_LETTERS = 8


def folder_name(study: Study, file: Path, scale: str | None, *, is_overridden: bool) -> str:
    """Return the name of the report's folder; `study` is what scale and overrides made of the `file`."""
    words = [study.study]
    is_plain = scale is None or re.fullmatch(r"[A-Za-z0-9_-]+", scale) is not None
    if scale is not None and is_plain:
        words.append(scale)
    written = as_written(file, scale) if is_overridden else study
    if not is_plain or written is None or study.key != written.key:
        words.append(study.key[:KEY_LETTERS])
    return ".".join(words)


def folders_of(out: Path, study: str) -> list[Path]:
    """Return the folders below `out` that a report of some sweep of a study may have."""
    return [out / study, *sorted(out.glob(f"{study}.*/"))]


def write_report(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a report's files; remove those of an earlier report that this one does not have."""
    assert all(any(fnmatch(name, ours) for ours in OURS) for name in files)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in files and any(fnmatch(path.name, ours) for ours in OURS):
            path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)

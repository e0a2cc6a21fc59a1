"""Studies that are shipped: found by their name, from any folder."""

import difflib
from pathlib import Path

from orchestrator.config.base import Refused
from orchestrator.config.installation import ROOT
from orchestrator.config.plain import check_path

STUDIES = ROOT / "jobs" / "studies"


def find_study(study: str) -> Path:
    """Return the file of a study, or of the shipped one of that name.

    Raise `Refused` for what no file can be named, or with the names that an unknown one is close to.
    """
    check_path("study", study)
    path = Path(study)
    shipped = STUDIES / f"{study}.yaml"
    is_given = path.exists() and not path.is_dir()  # a shell's <(...) is no regular file
    if is_given or not shipped.exists():
        shipped = path
    if not shipped.exists():
        close = difflib.get_close_matches(study.lower().removesuffix(".yaml"), shipped_studies())
        if close:
            raise Refused("study", study, "does not exist", f"did you mean {' or '.join(close)}")
    return shipped


def shipped_studies() -> list[str]:
    """Return the names of the shipped studies."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))

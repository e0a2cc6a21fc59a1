"""Identities: the classes of a set by a list of names, in the list's order, so that class i is line i.

Names are compared as those to exclude are.
"""

from collections import Counter
from pathlib import Path

import numpy as np

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets.manifest import Identities
from orchestrator.datasets.sources.base import Source
from orchestrator.datasets.sources.exclusion import NameList, folded, read_names

OPTION = "--identities"


def read_identities(path: Path) -> NameList:
    """Return the names in a file as `read_names` does; raise `Refused` if one is there twice."""
    listed = read_names(path, OPTION)
    twice = [name for name, count in Counter(listed.names).items() if count > 1]
    if twice:
        rule = f"lists {twice[0]!r} twice, {len(twice)} of {len(set(listed.names))} names more than once"
        raise Refused(OPTION, path, rule, "write each class on one line, in the order of the labels")
    return listed


def only(source: Source, listed: NameList) -> tuple[Source, Identities]:
    """Return the source with the listed classes alone, class i the i-th name, and the manifest's record.

    Raise `Refused` if a name is no class of the source, or is that of several.
    """
    names = [folded(name) for name in source.class_names]
    count = Counter(names)
    absent = [name for name in listed.names if not count[name]]
    if absent:
        rule = (
            f"lists {absent[0]!r}, which is no class with images ({len(absent)} of {len(listed.names)} names)"
        )
        raise Refused(OPTION, NO_VALUE, rule, f"correct the list; a class is named like {names[0]!r}")
    several = [name for name in listed.names if count[name] > 1]
    if several:
        rule = f"lists {several[0]!r}, the name of {count[several[0]]} classes ({len(several)} such names)"
        raise Refused(OPTION, NO_VALUE, rule, "rename the classes in the source")
    place = {name: label for label, name in enumerate(names)}
    classes = [place[name] for name in listed.names]
    kept = np.flatnonzero(np.isin(source.labels, classes))
    record = Identities(sha256=listed.sha256, names=len(classes))
    return source.restricted(kept, classes, "class not listed"), record

"""Precision `auto`: what a training takes by device and width, as measured (docs/performance.md). No torch.

The devices are those that a sweep's first start found. Its journal keeps what they were, so that the same
command finds the same keys on every machine.
"""

import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from orchestrator.config.resources import Resources
from orchestrator.stages.table import STAGES
from orchestrator.store.journal import Journal
from orchestrator.sweep.profiles import profile_of

logger = logging.getLogger(__name__)

LEAST_WIDTH = 0.25
"""Of all networks of a training, from which on it takes bfloat16 where the device has matrix units for it. On
a processor with AMX a step of the digit inverter takes 0.57 of float32's time at width 1 and 1.16 of it at
width 1/16; what lies between is not measured: this is the geometric mean of the two."""

SLOWDOWN = "1.7 to 32 times float32's CPU seconds on a processor with AVX2"
"""Of steps in bfloat16 without matrix units."""

NO_NODE = "no node has one yet; nodes that join may be set to another resources.precision"
"""Said of a kind of device of a cluster that nodes with it have still to join."""

EVENT = "precision"
"""In the journal, of one kind of device."""


@dataclass(frozen=True)
class Units:
    """Whether a kind of device, on every machine concerned, has matrix units for bfloat16, and why."""

    are_there: bool
    words: str


Find = Callable[[str], Units]
"""Returns what machines have of a kind of device, `cpu` or `cuda`."""


def faster(widths: Sequence[float], has_units: Callable[[], bool]) -> str:
    """Return the precision in which a training of networks of these widths is the faster one; `has_units` is
    called only where it matters."""
    return "bfloat16" if min(widths) >= LEAST_WIDTH and has_units() else "float32"


def joined(machines: Iterable[Units]) -> Units:
    """Return what several machines have in common."""
    each = list(machines)
    lacking = [one.words for one in each if not one.are_there]
    shown = lacking or [one.words for one in each]
    words = ", ".join(dict.fromkeys(shown))
    if len(each) > 1:
        words = f"{len(shown)} of {len(each)} nodes: {words}" if lacking else f"{len(each)} nodes: {words}"
    return Units(bool(each) and not lacking, words or NO_NODE)


class Precisions:
    """Chooses the precision of a sweep's trainings that its resources leave open.

    `find` is called once for each kind of device, and only where a network is wide enough for it to matter;
    `read` returns what the sweep's journal has.
    """

    def __init__(self, resources: Resources, find: Find, read: Callable[[], Mapping[str, Units]]) -> None:
        self._resources, self._find, self._read = resources, functools.cache(find), read
        self._journal: Journal | None = None
        self._kept: Mapping[str, Units] = {}
        self._used: dict[str, Units] = {}
        self._chosen: set[tuple[str, str]] = set()  # kind of device and precision

    def choose(self, device: str, widths: Sequence[float]) -> str:
        """Return the precision of a training on a kind of device."""
        precision = faster(widths, lambda: self._units(device).are_there)
        self._chosen.add((device, precision))
        return precision

    def keep(self, journal: Journal) -> None:
        """Write into the sweep's journal what is found, before anything is computed."""
        self._journal = journal
        for device in self._used:
            self._write(device)

    @property
    def words(self) -> str:
        """What was chosen and why, in one line; empty where the resources leave nothing open."""
        if not self._chosen:
            return ""
        if not self._used:
            return f"precision: float32 (every network that trains is narrower than {LEAST_WIDTH:g})"
        parts = [self._words(device, units) for device, units in self._used.items()]
        return f"precision: {', '.join(parts)}"

    def _words(self, device: str, units: Units) -> str:
        name = "bfloat16" if units.are_there else "float32"
        began = "as this sweep began, " if device in self._kept else ""
        is_mixed = units.are_there and (device, "float32") in self._chosen
        narrow = f"; float32 below width {LEAST_WIDTH:g}" if is_mixed else ""
        return f"{name} on {device} ({began}{units.words}{narrow})"

    def warnings(self) -> list[str]:
        """Return a line for each kind of device that has to train in bfloat16 without matrix units for it."""
        return list(filter(None, map(self._warning, ("cpu", "cuda"))))

    def _warning(self, device: str) -> str:
        asking = (stage for stage, kind in STAGES.items() if kind.trains and self._asks(stage, device))
        asked = next(asking, "")
        if not asked and (device, "bfloat16") not in self._chosen:
            return ""
        units = self._find(device)
        if units.are_there or units.words == NO_NODE:
            return ""
        own = self._resources.stages.get(asked)
        field = f"resources.stages.{asked}.precision" if own and own.precision else "resources.precision"
        subject = f"{field}=bfloat16" if asked else "this sweep began in bfloat16"
        factor = f" (steps took {SLOWDOWN})" if device == "cpu" else ""
        return (
            f"warning: {subject}, for which {device} has no matrix units here: {units.words}{factor}; "
            f"set {field}=float32, which changes keys."
        )

    def _asks(self, stage: str, device: str) -> bool:
        profile = profile_of(self._resources, stage)
        return (profile.device, profile.precision) == (device, "bfloat16")

    def _units(self, device: str) -> Units:
        if device not in self._used:
            self._kept = self._kept or self._read()
            units = self._used[device] = self._kept.get(device) or self._find(device)
            has_units, reason = units.are_there, units.words
            logger.info("event=precision_chosen device=%s units=%s reason=%r", device, has_units, reason)
            self._write(device)
        return self._used[device]

    def _write(self, device: str) -> None:
        if self._journal is not None and device not in self._kept:
            self._journal.append(EVENT, device=device, **asdict(self._used[device]))
            self._journal.flush()


def read_units(journal: Journal) -> dict[str, Units]:
    """Return what the first start of a sweep found, by kind of device."""
    events = [event for event in journal.events() if event["event"] == EVENT]
    return {one["device"]: Units(one["are_there"], one["words"]) for one in reversed(events)}

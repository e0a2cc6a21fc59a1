"""State dicts in a checkpoint: which one is meant, and the tensors' names without the trainer's wrappers.

A checkpoint may hold several networks beside counters, optimizers and averages. The one network, or the one
that fits the wanted architecture, is taken; where several could be meant the user chooses by name.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.datasets.checkpoint_files import FREE, MAX_RATIO, SAVE, children

WRAPPERS = (
    "module.",
    "_orig_mod.",
    "model.",
)  # DataParallel; torch.compile; Lightning and classes with a `model`
_OWN = ("weight", "bias", "running_mean")  # last parts of the names of layers' tensors
_DEPTH = 8
_TOP = "(top)"

State = dict[str, Tensor]
Check = Callable[[Mapping[str, Tensor]], None]
"""Raises `Refused` if tensors do not fit a network."""


def choose(loaded: object, where: str, entry: str = "", check: Check | None = None) -> State:
    """Return the tensors of the network that is meant, by name, without a wrapper's common prefix.

    `entry` names a nested dict, or a prefix of tensors' names. `check`, where given, decides which entry
    fits. Raise `Refused` under the name `where` if there is no tensor or if several networks could be meant,
    and what `check` raises.
    """
    entries = _entries(loaded)
    if not entries:
        raise Refused(where, NO_VALUE, "holds no tensor", SAVE)
    if entry:
        entries = {entry: _selected(entries, where, entry)}
    if check is not None:
        return _fitting(entries, where, check)
    return without_wrappers(_only(_networks(entries), where))


def check_sizes(loaded: object, num_bytes: int, where: str) -> None:
    """Raise `Refused` under the name `where` if tensors would fill more memory than a file of so many bytes
    can mean: one number may stand for all of a tensor, one storage for many tensors."""
    tensors = [one for state in _entries(loaded).values() for one in state.values()]
    wanted = sum(one.numel() * one.element_size() for one in tensors if one.layout is torch.strided)
    if wanted > MAX_RATIO * num_bytes + FREE:
        rule = f"has {num_bytes} bytes, and its tensors would take {wanted}"
        raise Refused(where, NO_VALUE, rule, "save a state dict of tensors that hold all of their numbers")


def without_wrappers(tensors: Mapping[str, Tensor]) -> State:
    """Return the tensors without the prefixes that trainers put before every name."""
    state = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    while prefix := next((one for one in WRAPPERS if all(name.startswith(one) for name in state)), ""):
        state = _below(state, prefix)
    return state


def _entries(loaded: object) -> dict[str, State]:
    """Return the path of each dict that holds tensors -> these tensors."""
    found: dict[str, State] = {}
    seen: set[int] = set()

    def walk(value: object, path: tuple[str, ...]) -> None:
        if id(value) in seen or len(path) > _DEPTH:  # objects may refer to those around them
            return
        seen.add(id(value))
        inside = children(value)
        own = {name: one for name, one in inside.items() if isinstance(one, Tensor)}
        if own:
            found[".".join(path)] = own
        for name, one in inside.items():
            if isinstance(one, Mapping):
                walk(one, (*path, name))

    walk(loaded, ())
    return found


def _networks(entries: Mapping[str, State]) -> dict[str, State]:
    """Return the entries with names of layers' tensors; if there are none, those with most tensors."""
    layers = {
        path: state
        for path, state in entries.items()
        if any(name.rpartition(".")[2] in _OWN for name in state)
    }
    most = max(map(len, entries.values()))
    return layers or {path: state for path, state in entries.items() if len(state) == most}


def _only(networks: Mapping[str, State], where: str) -> State:
    """Return the one network, or the first of equal ones; raise `Refused` with the names of several."""
    first, *others = networks.values()
    if all(_is_same(first, other) for other in others):
        return first
    names = ", ".join(f"{path or _TOP} ({len(state)} tensors)" for path, state in networks.items())
    raise Refused(where, NO_VALUE, f"holds several networks: {names}", "choose one with --entry")


def _fitting(entries: Mapping[str, State], where: str, check: Check) -> State:
    """Return the entry that fits, as it is or below a common prefix; else raise for the likeliest one."""
    fits: dict[str, State] = {}
    for path, state in entries.items():
        if form := next((one for one in _forms(state) if _passes(one, check)), None):
            fits[path] = form
    if not fits:
        for prefix in dict.fromkeys(one for state in entries.values() for one in _prefixes(state)):
            for path, state in entries.items():
                inside = _below(state, prefix)
                if inside and _passes(inside, check):
                    fits[f"{path}.{prefix}".strip(".")] = inside
    if fits:
        return _only(fits, where)
    networks = _networks(entries)
    check(without_wrappers(max(networks.values(), key=len)))
    raise AssertionError("the check passes now and did not before")


def _forms(state: State) -> list[State]:
    """Return tensors as named in the file, without wrappers, and without counters beside the layers."""
    plain = without_wrappers(state)
    return [plain, {name: one for name, one in plain.items() if "." in name or one.ndim}]


def _passes(state: Mapping[str, Tensor], check: Check) -> bool:
    try:
        check(state)
    except Refused:
        return False
    return True


def _prefixes(state: Mapping[str, Tensor]) -> list[str]:
    """Return every beginning of the names that ends with a dot, shortest first."""
    parts = [name.split(".")[:-1] for name in state]
    found = {".".join(words[: count + 1]) + "." for words in parts for count in range(len(words))}
    return sorted(found, key=lambda prefix: (prefix.count("."), prefix))


def _selected(entries: Mapping[str, State], where: str, entry: str) -> State:
    """Return the tensors under a path; raise `Refused` with the known ones."""
    path = "" if entry == _TOP else entry
    if path in entries:
        return entries[path]
    whole = {f"{at}.{name}".lstrip("."): one for at, state in entries.items() for name, one in state.items()}
    if inside := _below(whole, f"{path}."):
        return inside
    names = ", ".join(at or _TOP for at in entries)
    raise Refused("--entry", entry, f"is no entry of {where}, which has {names}", "choose one of them")


def _below(state: Mapping[str, Tensor], prefix: str) -> State:
    return {name.removeprefix(prefix): one for name, one in state.items() if name.startswith(prefix)}


def _is_same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)

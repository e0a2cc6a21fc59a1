"""Public weights under our names: state dicts of libraries and papers for `Classifier.load_state_dict`."""

import logging
from collections.abc import Mapping

from torch import Tensor

from orchestrator.config.base import NO_VALUE, Refused
from orchestrator.models.classifier import Classifier

HEAD = "head."
WRAPPER = "module."  # released classifiers are saved inside torch's DataParallel
COUNTER = "num_batches_tracked"  # absent from older files; torch then counts from 0

Shapes = Mapping[str, tuple[int, ...]]

logger = logging.getLogger(__name__)


def renamed(network: Classifier, public: Mapping[str, Tensor], *, name: str = "given") -> dict[str, Tensor]:
    """Return public tensors under the names of `network.state_dict()`.

    Those of the blocks are complete and of the network's shapes, except for parts in `network.own`. Those of
    the head come as `head.*`, if the file has any, in the file's shapes, which fit the same number of classes
    only. Raise `Refused`, which calls the weights `name`, if tensors are missing, unknown or of another
    shape.
    """
    theirs = _theirs(network, public)
    wanted = _shapes(network.state_dict())
    found = _shapes({ours: public[public_name] for ours, public_name in theirs.items()})
    kept = tuple(
        part for part in network.own if _complaints(_inside(part, wanted), _inside(part, found), theirs)
    )
    for part in kept:
        logger.info("event=first_values_kept weights=%s part=%s", name, part)
    outside = (HEAD, *kept)
    if complaints := _complaints(_without(outside, wanted), _without(outside, found), theirs):
        raise _unfit(network, complaints, name, "choose weights of the same architecture")
    return {ours: public[theirs[ours]] for ours in found if not ours.startswith(kept)}


def whole(network: Classifier, public: Mapping[str, Tensor], *, name: str = "given") -> dict[str, Tensor]:
    """Return public tensors under the names of `network.state_dict()`: all of them, head and `own` parts
    included, and no other.

    Raise `Refused`, which calls the weights `name`, if tensors are missing, unknown or of another shape.
    """
    theirs = _theirs(network, public)
    wanted = _shapes(network.state_dict())
    found = _shapes({ours: public[public_name] for ours, public_name in theirs.items()})
    if complaints := _complaints(wanted, found, theirs):
        raise _unfit(network, complaints, name, _way_out(wanted, found))
    return {ours: public[theirs[ours]] for ours in found}


def num_outputs(network: Classifier, public: Mapping[str, Tensor]) -> int | None:
    """Return how many outputs public weights have under the names of a network; None without its head."""
    last = [name for name in network.state_dict() if name.startswith(HEAD)][-1]
    theirs = _theirs(network, public)
    return public[theirs[last]].shape[0] if last in theirs else None


def _theirs(network: Classifier, public: Mapping[str, Tensor]) -> dict[str, str]:
    """Return our name -> the public one, without those that the network ignores."""
    theirs = {_our_name(network, public_name): public_name for public_name in public}
    theirs.pop("", None)
    return theirs


def _way_out(wanted: Shapes, found: Shapes) -> str:
    """Return what makes a network of the shapes found: the channels, where only these are seen to differ."""
    first = next((name for name in wanted if name in found and found[name] != wanted[name]), None)
    if first and len(wanted[first]) == len(found[first]) == 4:
        (outputs, inputs, *sides), (other, channels, *others) = wanted[first], found[first]
        if (outputs, sides) == (other, others) and {inputs, channels} == {1, 3}:
            return f"set data.channels={channels}"
    return "use the network, width, image size and defense that they were trained with"


def _unfit(network: Classifier, complaints: list[str], name: str, way_out: str) -> Refused:
    rule = f"do not fit {type(network).__name__}: {', '.join(complaints)}"
    return Refused(f"weights {name}", NO_VALUE, rule, way_out)


def _our_name(network: Classifier, public_name: str) -> str:
    """Return our name of a public tensor, or "" if the network ignores it."""
    bare = public_name.removeprefix(WRAPPER)
    if bare.startswith(network.ignored):
        return ""
    prefix = max((begin for begin in network.renamed if bare.startswith(begin)), key=len, default="")
    return network.renamed.get(prefix, "") + bare.removeprefix(prefix)


def _shapes(state: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _inside(part: str, shapes: Shapes) -> Shapes:
    return {name: shape for name, shape in shapes.items() if name.startswith(part)}


def _without(parts: tuple[str, ...], shapes: Shapes) -> Shapes:
    return {name: shape for name, shape in shapes.items() if not name.startswith(parts)}


def _complaints(wanted: Shapes, found: Shapes, theirs: Mapping[str, str]) -> list[str]:
    """Return the differences between the tensors given and those wanted, one clause each."""
    missing = [name for name in wanted if name not in found and not name.endswith(COUNTER)]
    unknown = [theirs[name] for name in found if name not in wanted]
    reshaped = [name for name in wanted if name in found and found[name] != wanted[name]]
    complaints = []
    if missing:
        tensors = "1 tensor is" if len(missing) == 1 else f"{len(missing)} tensors are"
        complaints.append(f"{tensors} missing (first: {missing[0]})")
    if unknown:
        complaints.append(f"{len(unknown)} unknown (first: {unknown[0]})")
    if reshaped:
        first = reshaped[0]
        complaints.append(
            f"{len(reshaped)} of another shape (first: {first} has {found[first]}, wants {wanted[first]})"
        )
    return complaints

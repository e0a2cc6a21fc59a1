"""Types of attributes: what the code of a program declares, and what does not keep to it."""

import pytest

from orchestrator.config.base import Refused
from orchestrator.models.programs.script_types import (
    DICT,
    LIST,
    Held,
    Value,
    check_types,
    declared_in,
)

TEXT = """class Net(Module):
  __parameters__ = ["weight", ]
  weight : Tensor
  training : bool
  eps : Final[float] = 1e-05
  __annotations__["0"] = __torch__.net.Block
  def forward(self: __torch__.net.Net,
    x: Tensor) -> Tensor:
    return x
class Block(Module):
  scale : Optional[float]
"""
TENSOR = Value("Tensor")


def test_attributes_are_those_of_their_class() -> None:
    assert declared_in(TEXT, "__torch__.net", "x") == {
        "__torch__.net.Net": {
            "weight": "Tensor",
            "training": "bool",
            "eps": "Final[float] = 1e-05",
            "0": "__torch__.net.Block",
        },
        "__torch__.net.Block": {"scale": "Optional[float]"},
    }


@pytest.mark.parametrize("twice", ["class Net(Module):\n", "class Other(Module):\n  a : int\n  a : bool\n"])
def test_what_is_declared_twice_is_refused(twice: str) -> None:
    with pytest.raises(
        Refused, match=r"^x (holds the class __torch__\.net\.Net|declares the attribute a) twice; "
    ):
        declared_in(TEXT + twice, "__torch__.net", "x")


@pytest.mark.parametrize(
    "odd",
    [
        "class Net (Module):\n  a : int\n",  # torch takes it for a second class of that name
        "class Colour(Enum):\n  red = 1\n",
        "class Odd(Module):\n  a:int\n",
        "class Odd(Module):\n a : int\n",
        "class Odd(Module):\n    a : int\n",
        "class Odd(Module):\n  b : int\n    a : int\n",
        "class Odd(Module):\n  __parameters__ = []\n    a : int\n",
        "  a : int\nclass Odd(Module):\n  b : int\n",
    ],
)
def test_lines_that_torch_does_not_write_are_refused(odd: str) -> None:
    with pytest.raises(Refused, match=r"^x holds code that torch\.jit\.save does not write \("):
        declared_in(odd, "__torch__.net", "x")


def test_parameters_of_a_method_are_no_attributes() -> None:
    text = "class Net(Module):\n  def f(self: __torch__.net.Net,\n  a : int) -> int:\n    return 1\n"
    assert declared_in(text, "__torch__.net", "x") == {"__torch__.net.Net": {}}


def test_a_list_has_one_type_wherever_it_is() -> None:
    both = Held(LIST)
    state = Held(DICT, ["a", both, "b", both])
    values = [Held("__torch__.net.Net", [state]), state, both]
    check_types(values, {"__torch__.net.Net": {"a": "List[int]", "b": "List[int]"}}, "x")
    with pytest.raises(Refused, match=r"^x holds __torch__\.net\.Net\.b as another type than List"):
        check_types(values, {"__torch__.net.Net": {"a": "List[int]", "b": "List[Tensor]"}}, "x")
    with pytest.raises(Refused, match=r"^x holds __torch__\.net\.Net\.a as another type than List"):
        check_types(
            values, {"__torch__.net.Net": {"a": "List[int]", "b": "List[int]"}}, "x", [(both, "List[str]")]
        )


def test_a_value_has_the_type_that_its_pickle_says() -> None:
    one = Held(LIST, [(1,)])
    check_types([one], {}, "x", [(one, "List[Tuple[int]]")])
    with pytest.raises(Refused, match=r"^x holds a value that is no List\[Tuple\[int, int\]\]"):
        check_types([one], {}, "x", [(one, "List[Tuple[int, int]]")])


def check(value: object, text: str) -> None:
    state = Held(DICT, ["a", value])
    check_types([Held("__torch__.net.Net", [state]), state], {"__torch__.net.Net": {"a": text}}, "x")


BLOCK = Held("__torch__.net.Block")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((3, "int"), (3.0, "float"), (True, "bool"), ("a", "str"), (None, "NoneType"), (TENSOR, "Tensor")),
        *((None, "Optional[Tensor]"), (TENSOR, "Optional[Tensor]"), (BLOCK, "__torch__.net.Block")),
        *(((1, 2), "Tuple[int, int]"), ((), "Tuple[()]"), (((1,), "a"), "Tuple[Tuple[int], str]")),
        *((Held(LIST, [1, 2]), "List[int]"), (Held(LIST, [Held(LIST)]), "List[List[Tensor]]")),
        *((Held(DICT, ["a", TENSOR]), "Dict[str, Tensor]"), (Held(DICT), "Dict[str, List[int]]")),
        *((Value("Device"), "Device"),),
    ],
)
def test_values_of_their_type_are_good(value: object, text: str) -> None:
    check(value, text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((3, "bool"), (True, "int"), (3, "float"), (None, "Tensor"), (3, "Tensor"), (TENSOR, "int")),
        *((BLOCK, "__torch__.net.Other"), (BLOCK, "Tensor"), (BLOCK, "Optional[Tensor]"), (BLOCK, "Any")),
        *(((1, 2, 3), "Tuple[int, int]"), ((1,), "Tuple[int, int]"), (Held(LIST, [1]), "Tuple[int]")),
        *(
            (Held(LIST, [1, TENSOR]), "List[int]"),
            ((1, 2), "List[int]"),
            (Held(DICT, ["a"]), "Dict[str, int]"),
        ),
        *((Held(DICT, [1, 1]), "Dict[str, int]"), (Held(LIST), "list"), (1, "Final[int] = 1"), (1, "int]")),
    ],
)
def test_values_of_another_type_are_refused(value: object, text: str) -> None:
    with pytest.raises(Refused, match=r"^x holds __torch__\.net\.Net\.a as another type than "):
        check(value, text)


@pytest.mark.parametrize(
    ("held", "rule"),
    [
        (Held("__torch__.net.Absent", [Held(DICT)]), r"holds no state of the class __torch__\.net\.Absent"),
        (Held("__torch__.net.Block"), r"holds no state of the class __torch__\.net\.Block"),
        (Held("__torch__.net.Block", [Held(LIST)]), r"holds no state of the class __torch__\.net\.Block"),
        (Held("__torch__.net.Block", [Held(DICT, ["b", 1])]), "as another type than no such attribute"),
    ],
)
def test_a_state_is_that_of_its_class(held: Held, rule: str) -> None:
    with pytest.raises(Refused, match=f"^x .*{rule}"):
        check_types([held], declared_in(TEXT, "__torch__.net", "x"), "x")

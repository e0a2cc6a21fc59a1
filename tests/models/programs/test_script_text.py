"""Text of TorchScript: names behind dots, tokens that the compiler does not write."""

import pytest

from orchestrator.config.base import Refused
from orchestrator.models.programs.script_text import check_class, check_text

GOOD = """def forward(self: __torch__.net.Net,
    x: Tensor) -> Tensor:
  _0 = __torch__.torch.nn.functional.relu
  weight = self.weight
  y = torch.conv2d(x, CONSTANTS.c0, None, [2, 2], [-1, 3], 1.0000000000000001e-05, 0.)
  size = unchecked_cast(List[int], x)
  if torch.ne(torch.dim(y), 4):
    ops.prim.RaiseException(torch.format("expected \\"4D\\" input (got {}D)", 3), "builtins.ValueError")
  else:
    pass
  return (getattr(self, "0")).forward((_0)(y, False, ), )
"""


def test_what_the_compiler_writes_is_good() -> None:
    check_text(GOOD, "x")


@pytest.mark.parametrize(
    "text",
    [
        *("torch.from_file", "ops.aten.from_file", "ops.prim.Print", "ops.quantized.linear", "ops", "torch"),
        *(
            "torch.relu.save",
            "x.save",
            "(x).save",
            "(x).y.save",
            "x().save",
            "x[0].save",
            '"".save',
            "self.a.save",
        ),
        *("CONSTANTS.d0", "CONSTANTS", "print", "fork", "rpc_async", "__setstate__", "x.__setstate__"),
        *("unchecked_cast(__torch__.net.Net, x)", "unchecked_cast(Tuple[int, int], x)", "unchecked_cast"),
        *("ops.prim.unchecked_cast", "unchecked_cast(List[__torch__.net.Net], x)"),
        *('getattr(x, "save")', 'getattr(x, "from_file")', "torch.classes.a.B", "torch.ops.aten.relu"),
    ],
)
def test_what_a_classifier_does_not_name_is_refused(text: str) -> None:
    with pytest.raises(
        Refused, match=r"^x names .*, which is no operator of a classifier; export the network"
    ):
        check_text(f"_0 = {text}", "x")


@pytest.mark.parametrize(
    "text",
    [
        *('getattr(x, "sa" "ve")', '"a""b"', '"a"\n"b"', 'f"a"'),
        *("torch .relu", "torch. relu", "torch\n.relu", "x0. save", ".save", "x.", "1.save", "1..save"),
        *(
            "x # y",
            "'x'",
            '"""x"""',
            '"a\\x41"',
            '"a',
            "x\\\ny",
            "x; y",
            "x + y",
            "x @ y",
            "`x`",
            "\tx",
            "x\r",
        ),
        *(
            "\u00e9",
            "x.\u00e9",
            "--1",
            "- -1",
            "[" * 201,
            " " * 401 + "x",
            ".".join(["a"] * 202),
            "x" + "()" * 202,
        ),
    ],
)
def test_what_the_compiler_does_not_write_is_refused(text: str) -> None:
    with pytest.raises(Refused, match=r"^x holds code that torch\.jit\.save does not write \(.*\); save the"):
        check_text(text, "x")


def test_a_class_is_the_programs_own() -> None:
    check_class("__torch__.torch.nn.modules.conv.Conv2d", "x")
    check_class("__torch__.net.___torch_mangle_3.Net", "x")
    with pytest.raises(
        Refused, match=r"^x asks for the custom class torch\.classes\.a\.B, which runs native"
    ):
        check_class("__torch__.torch.classes.a.B", "x")
    with pytest.raises(Refused, match=r"^x asks for the class __torch__\.\.\./net; "):
        check_class("__torch__.../net", "x")

"""Spans modules: what rooms import from each other documents its shapes and its errors.

What counts is what a module of another room, or of `jobs/`, imports: functions, and classes with their public
methods. Of a mapping of names to tensors, such as a state dict, no one shape could be stated.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from tests.test_floors import ROOT, SOURCES, name_of

Function = ast.FunctionDef | ast.AsyncFunctionDef
LIBRARY = {name_of(path): path for path in SOURCES if path.is_relative_to(ROOT / "orchestrator")}
ARRAY = re.compile(r"\b(?:Tensor|ndarray|NDArray)\b")
STATE_DICT = re.compile(r"\b(?:dict|Mapping)\[str, (?:torch\.)?Tensor\]")
SIZE = r"(?:\.\.\.|[A-Z][a-z]{0,2}|[a-z]|\d+|side|width|height)(?: ?[+*/-] ?\w+)*"
SHAPE = re.compile(rf"\({SIZE},(?: {SIZE})?(?:, {SIZE})*\)|\b[Ss]calars?\b|\bany shapes?\b")
RAISES = re.compile(r"\brais(?:e|es|ed|ing)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Public:
    """A function or method that another room imports, with the docstrings that may describe it."""

    name: str
    node: Function
    around: str
    """Docstrings of its class and module; empty for a function."""

    @property
    def docstring(self) -> str:
        """The function's own docstring."""
        return ast.get_docstring(self.node) or ""


@cache
def tree(module: str) -> ast.Module:
    """Return a module's syntax tree."""
    return ast.parse(LIBRARY[module].read_text(encoding="ascii"))


def room(module: str) -> str:
    """Return a module's room; that of every command is `jobs`."""
    parts = module.split(".")
    return parts[1] if parts[0] == "orchestrator" and len(parts) > 1 else parts[0]


def bindings(body: ast.AST) -> Iterator[tuple[str, str, str]]:
    """Yield (name here, module, name there) of every import from the library; no name there for a module."""
    for node in ast.walk(body):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("orchestrator"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                there = (whole, "") if whole in LIBRARY else (node.module or "", alias.name)
                yield (alias.asname or alias.name, *there)


def definition(module: str, name: str) -> tuple[str, ast.AST] | None:
    """Return where a name is defined, and its definition: through what packages import for others."""
    for node in tree(module).body:
        if isinstance(node, ast.ClassDef | Function) and node.name == name:
            return module, node
    for here, source, there in bindings(tree(module)):
        if here == name and there:
            return definition(source, there)
    return None


def across_rooms() -> set[tuple[str, str]]:
    """Return (module, name) of everything that a module of another room uses."""
    used = set()
    for path in SOURCES:
        module, body = name_of(path), ast.parse(path.read_text(encoding="ascii"))
        modules = {}
        for here, source, there in bindings(body):
            if room(source) != room(module):
                modules[here] = source
                if there:
                    used.add((source, there))
        used |= {
            (modules[node.value.id], node.attr)
            for node in ast.walk(body)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in modules
        }
    return used


def methods(module: str, node: ast.ClassDef) -> Iterator[Public]:
    """Yield the public methods of a class and of its bases in the library."""
    around = f"{ast.get_docstring(node) or ''}\n{ast.get_docstring(tree(module)) or ''}"
    for member in node.body:
        if isinstance(member, Function) and not member.name.startswith("_"):
            yield Public(f"{module}.{node.name}.{member.name}", member, around)
    for base in node.bases:
        found = definition(module, base.id) if isinstance(base, ast.Name) else None
        if found and isinstance(found[1], ast.ClassDef):
            yield from methods(found[0], found[1])


@cache
def public() -> tuple[Public, ...]:
    """Return every function and method that crosses rooms, by name."""
    result = {}
    for source, name in across_rooms():
        found = definition(source, name)
        if found is None:
            continue
        module, node = found
        if isinstance(node, ast.ClassDef):
            result.update({one.name: one for one in methods(module, node)})
        elif isinstance(node, Function):
            result[f"{module}.{name}"] = Public(f"{module}.{name}", node, "")
    return tuple(result[name] for name in sorted(result))


def takes_arrays(node: Function) -> bool:
    """Whether a parameter or the result is annotated as a tensor or an array."""
    given = node.args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    annotations = [one.annotation for one in arguments if one is not None] + [node.returns]
    return any(one and ARRAY.search(STATE_DICT.sub("", ast.unparse(one))) for one in annotations)


def raises(node: ast.AST, caught: str = "") -> bool:
    """Whether the body raises an error of its own: not in a nested function, passed on, or caught here.

    `caught` has the names of the classes that handlers around the node catch.
    """
    if isinstance(node, ast.Raise) and node.exc is not None:
        return ast.unparse(node.exc).partition("(")[0] not in re.findall(r"[\w.]+", caught)
    inside = caught
    if isinstance(node, ast.Try):
        inside += " ".join(ast.unparse(one.type) for one in node.handlers if one.type)
    for child in ast.iter_child_nodes(node):
        is_guarded = isinstance(node, ast.Try) and child in node.body
        is_nested = isinstance(child, Function | ast.Lambda | ast.ClassDef)
        if not is_nested and raises(child, inside if is_guarded else caught):
            return True
    return False


def test_every_tensor_function_that_crosses_rooms_states_a_shape() -> None:
    functions = [one for one in public() if takes_arrays(one.node)]
    missing = [one.name for one in functions if not SHAPE.search(f"{one.docstring}\n{one.around}")]
    assert len(functions) > 30
    assert not missing, f"{len(missing)} of {len(functions)} state no shape: {missing}"


def test_every_raising_function_that_crosses_rooms_names_its_error() -> None:
    functions = [one for one in public() if raises(one.node)]
    missing = [one.name for one in functions if not RAISES.search(one.docstring)]
    assert len(functions) > 30
    assert not missing, f"{len(missing)} of {len(functions)} do not state what they raise: {missing}"

"""The console command `inversion`: each command of this folder as a subcommand, imported when it is called.

`inversion sweep demo` is `python -m jobs.sweep demo` for an installed package: it works from any folder, also
from one with a `jobs` or an `orchestrator` of its own, which `python -m` would run instead.
"""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

PROGRAM = "inversion"
COMMANDS = {
    "sweep": "Run a study: train targets, attack them, measure what leaks.",
    "runs": "List, show and compare the sweeps of stores.",
    "report": "Write a study's report again from what is stored.",
    "stage-data": "Stage a data set for all sweeps.",
    "stage-weights": "Stage public weights for all sweeps.",
    "store": "List, verify, clean up or remove what is stored.",
    "doctor": "Check everything that a sweep needs.",
    "notice": "Drain a spot node before it is taken away.",
    "ui": "Browse sweeps in MLflow on this machine.",
}
"""Command -> its line in the help. Its module has the same name, with `_` for `-`, and an `app`."""


class Lazy(TyperGroup):
    """A group that imports the module of the one command that is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command's name, the command itself and its arguments; exit with 2 for an unknown one."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else loaded(name), rest


def loaded(name: str) -> Any:
    """Import a command's module and return its command, a group for `store`."""
    return typer.main.get_command(import_module(f"jobs.{name.replace('-', '_')}").app)


def console_app() -> typer.Typer:
    """Return the application over all commands; none of them is imported."""
    app = typer.Typer(
        cls=Lazy,
        name=PROGRAM,
        add_completion=False,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        help="Sweeps of model-inversion attacks and defenses; each command has its own --help.",
    )
    for name, about in COMMANDS.items():
        app.command(name, help=about)(_not_loaded)
    return app


def _not_loaded() -> None:
    raise AssertionError("the group replaces this by the command of its name")


def main() -> None:
    """Run the console command."""
    console_app()(prog_name=PROGRAM)


if __name__ == "__main__":
    main()

"""`jobs.runs pause`, `resume` and `resize`: requests to a sweep that runs, on Ray or in one process."""

import sys
from typing import Annotated

import typer

from jobs.runs_output import DEFAULT, Stores, in_words, sweeps_of
from jobs.store_output import Out, refusing
from orchestrator.api.requests import Answer, request
from orchestrator.api.runs import StoredSweep, find_sweep
from orchestrator.store.requests import Subject

NOT_ANSWERED = 1  # exit code

Name = Annotated[str, typer.Argument(metavar="SWEEP", help="A study's name, or the start of a sweep's key.")]
Wait = Annotated[
    float, typer.Option("--wait", min=0.0, metavar="SECONDS", help="Wait this long for the sweep's answer.")
]


def pause(sweep: Name, store: Stores = list(DEFAULT), wait: Wait = 60.0) -> None:  # noqa: B006
    """Pause a sweep: running stages are finished or saved, worker groups end, its process waits."""
    _send(sweep, store, "pause", 1, wait)


def resume(sweep: Name, store: Stores = list(DEFAULT), wait: Wait = 60.0) -> None:  # noqa: B006
    """Resume a paused sweep; where its process is gone, run its command again instead."""
    _send(sweep, store, "pause", 0, wait)


def resize(
    sweep: Name,
    groups: Annotated[int, typer.Argument(help="Worker groups that may run at most, from now on.")],
    store: Stores = list(DEFAULT),  # noqa: B006
    wait: Wait = 60.0,
) -> None:
    """Change how many worker groups a sweep has; those that are too many end after their stage."""
    _send(sweep, store, "groups", groups, wait)


def _send(name: str, stores: list[str], subject: Subject, value: int, seconds: float) -> None:
    out = Out(as_json=False)
    with refusing():
        sweep = find_sweep(sweeps_of(stores), name)
        answer = request(sweep, subject, value, seconds=seconds)
        out.say(_words(sweep, answer, seconds))
        if not answer.is_taken:
            sys.exit(NOT_ANSWERED)


def _words(sweep: StoredSweep, answer: Answer, seconds: float) -> str:
    start, state = answer.start, answer.state
    who = f"{sweep.label}, started {in_words(start.started_ms)} on {start.node}, process {start.pid}"
    if not answer.is_taken:
        return (
            f"{who}: no answer within {seconds:g} s; if that process is gone, run the sweep's command again, "
            "else it takes the request when it reads it"
        )
    return f"{who}: {', '.join(filter(None, (state.phase, state.size)))}"

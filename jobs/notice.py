"""Watch for the preemption of a spot node: `python -m jobs.notice`, beside `ray start` on the node.

At the notice (EC2's metadata service, or SIGTERM) Ray drains the node: trainings save their state in time and
go on elsewhere. Without it a lost node costs one checkpoint interval.
"""

import sys
from typing import Annotated

import typer

from orchestrator.runtime.ray.preemption import drain, wait_for_preemption

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    metadata_url: Annotated[
        str,
        typer.Option(help="Poll this metadata service of EC2; pass an empty one to wait for SIGTERM only."),
    ] = "http://169.254.169.254",
    poll: Annotated[float, typer.Option(metavar="SECONDS", help="Wait this long between two polls.")] = 5.0,
    seconds: Annotated[float, typer.Option(help="Seconds from a SIGTERM to the end of this machine.")] = 25.0,
    now: Annotated[
        bool, typer.Option("--now", help="Drain at once instead of waiting for a notice.")
    ] = False,
    node_id: Annotated[
        str, typer.Option(help="Drain the node with this id of Ray; default: this machine's.")
    ] = "",
) -> None:
    """Wait for the preemption notice of this node, then drain the node in Ray."""
    left = seconds if now else wait_for_preemption(metadata_url, poll, seconds)
    print(f"this node ends in {left:.0f} s; draining it in Ray", flush=True)
    try:
        drain(left, node_id)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    app()

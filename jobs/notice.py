"""Watch over a node that may be taken away: `python -m jobs.notice`, beside `ray start` on each spot node.

When the cloud gives notice (EC2's metadata service, or SIGTERM) Ray is told to empty the node: trainings save
their state within the notice and go on elsewhere. Without it a lost node costs one checkpoint interval.
"""

import sys
from typing import Annotated

import typer

from orchestrator.runtime.ray.preemption import drain, wait_for_notice

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    metadata_url: Annotated[
        str, typer.Option(help="EC2's metadata service; empty asks nobody and waits for SIGTERM.")
    ] = "http://169.254.169.254",
    poll: Annotated[float, typer.Option(metavar="SECONDS", help="Between two questions.")] = 5.0,
    seconds: Annotated[float, typer.Option(help="What a SIGTERM leaves this machine.")] = 25.0,
    now: Annotated[bool, typer.Option("--now", help="The notice is here: do not wait.")] = False,
    node_id: Annotated[str, typer.Option(help="Ray's id of the node; default: this machine's.")] = "",
) -> None:
    """Wait for a notice, then have Ray empty this node."""
    left = seconds if now else wait_for_notice(metadata_url, poll, seconds)
    print(f"this node ends in {left:.0f} s; telling Ray", flush=True)
    try:
        drain(left, node_id)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    app()

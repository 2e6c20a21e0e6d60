"""`spleen dashboard`."""

import sys
from typing import Annotated

import typer


def dashboard(
    target: Annotated[
        str,
        typer.Argument(
            metavar="STUDY|PROJECT",
            help="A folder of runs, such as outputs/size_and_rate, or a wandb project (PROJECT or ENTITY/PROJECT).",
            show_default=False,
        ),
    ],
) -> None:
    """Make a report in Weights & Biases that compares the runs of a study or of a project.

    Shows parallel coordinates, maps and bars of the test Dice over the settings that differ, learning curves, and test
    slices. Each call makes a new report. Needs the package wandb-workspaces. Exit code 0 if the report is saved, 2 for
    invalid input, such as a missing API key, and if the server cannot be reached.
    """
    from spleen.runs.dashboard.plan import dashboard_of
    from spleen.runs.dashboard.report import check_can_save, save_report

    wanted = dashboard_of(target)
    check_can_save()
    if wanted.n_waiting:
        print(
            f"warning: {wanted.n_waiting} offline run(s) are not on the server yet; upload them with: "
            f"spleen sync {target}",
            file=sys.stderr,
        )
    print(f"saved: {save_report(wanted)}")

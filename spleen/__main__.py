"""The `spleen` command, also as `python -m spleen`."""

import sys


def main() -> None:
    """Run the command line of this process and exit with its code."""
    if sys.argv[1:2] == ["train"]:  # all other arguments are Hydra's; without Typer, --help answers sooner
        from spleen.runs.main import main as train

        sys.exit(train(sys.argv[2:]))
    from spleen.cli.main import main as command

    command()


if __name__ == "__main__":
    main()

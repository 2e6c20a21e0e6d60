"""`python -m spleen` is the `spleen` command."""

from spleen.cli.main import main

if __name__ == "__main__":
    main()

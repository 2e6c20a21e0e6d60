"""`python -m spleen` is the `spleen` command."""

from spleen.cli import main

if __name__ == "__main__":
    main()

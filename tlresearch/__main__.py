"""`python -m tlresearch` is the command `tlresearch`."""

from tlresearch.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

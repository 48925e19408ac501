"""`python -m repae` is the `repae` command."""

from repae.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

"""`python -m shared.cli`: the same as `baton`."""

from shared.cli import main

main()

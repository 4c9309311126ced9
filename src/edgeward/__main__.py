"""`python -m edgeward` is `edgeward`."""

from edgeward.cli import main

main()

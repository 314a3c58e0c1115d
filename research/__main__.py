"""`python -m research ...` is `sparring ...`."""

from research.cli import main

main()

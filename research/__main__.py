"""Entry point of `python -m sparring ...`, equal to `sparring ...`."""

from sparring.cli.main import main

main()

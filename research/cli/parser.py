"""Parsing of arguments, shared by all commands."""

import argparse
import time
from typing import NoReturn

from sparring.errors import UserError

STARTED = time.time()


def strict(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Return `parser`, changed to raise a UserError of one line for arguments it refuses.

    argparse would print its usage too.
    """

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}. See `--help`.")

    parser.error = refuse  # type: ignore[method-assign]
    return parser

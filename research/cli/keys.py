"""Command `sparring keys FILE`: add, revoke and list the API keys of a server."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from sparring.cli.parser import strict
from sparring.errors import UserError
from sparring.serving.api_keys import add, read, revoke


def main(arguments: Sequence[str]) -> int:
    """Run `sparring keys FILE add|revoke|list [NAME]`; return the exit code."""
    parser = strict(
        argparse.ArgumentParser(prog="sparring keys", description="Who may ask a server of models.")
    )
    parser.add_argument(
        "file", type=Path, help="the file of hashed keys that sparring serve --keys reads"
    )
    parser.add_argument("action", choices=("add", "revoke", "list"))
    parser.add_argument("name", nargs="?", help="whose key")
    chosen = parser.parse_args(list(arguments))
    if (chosen.name is None) != (chosen.action == "list"):
        raise UserError(
            f"sparring keys {chosen.file} {chosen.action}: add and revoke take a name, list none."
        )
    if chosen.action == "list":
        print(
            *(f"{entry['name']}  {entry.get('created', '')}" for entry in read(chosen.file)),
            sep="\n",
        )
    elif chosen.action == "add":
        print(add(chosen.file, chosen.name))
    else:
        revoke(chosen.file, chosen.name)
    return 0

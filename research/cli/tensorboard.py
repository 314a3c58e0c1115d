"""Command `sparring tensorboard FOLDER`: TensorBoard on this machine alone, with more images."""

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from sparring.cli.parser import strict
from sparring.errors import UserError

PICTURES = 200  # steps of a tag whose images are kept; TensorBoard's default is ten


def main(arguments: Sequence[str]) -> int:
    """Parse the flags, and replace this process by TensorBoard."""
    command = tensorboard(arguments)
    os.execv(command[0], command)


def tensorboard(arguments: Sequence[str]) -> list[str]:
    """Return the command that `arguments` ask for.

    Raises:
        UserError: the folder does not exist, or a flag would open TensorBoard to other machines.
    """
    parser = argparse.ArgumentParser(
        prog="sparring tensorboard",
        description="TensorBoard on 127.0.0.1. Flags of TensorBoard's own may follow.",
        epilog="From another machine: ssh -L 6006:localhost:6006 this-machine, then "
        "http://localhost:6006 there.",
    )
    strict(parser)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path("runs"), help="of runs; default runs"
    )
    parser.add_argument(
        "--port", type=int, default=6006, help="default 6006, or the next that is free"
    )
    chosen, others = parser.parse_known_args(list(arguments))
    if not chosen.folder.is_dir():
        raise UserError(f"{chosen.folder}: there is no such folder.")
    if any(flag.startswith(("--ho", "--bi")) for flag in others):
        raise UserError(  # TensorBoard accepts abbreviated flags
            "TensorBoard knows no passwords, so it is opened on this machine alone. From another "
            "one: "
            "ssh -L 6006:localhost:6006 this-machine."
        )
    port = _free(chosen.port)
    return [
        sys.executable,
        "-W",
        "ignore",  # of other packages' deprecations
        "-m",
        "tensorboard.main",
        "--logdir",
        str(chosen.folder),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--samples_per_plugin",
        f"images={PICTURES},text=100",
        *others,
    ]


def _free(first: int) -> int:
    """Return the first port from `first` on that is free."""
    for port in range(first, first + 50):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise UserError(f"--port {first}: it and the fifty after it are taken.")

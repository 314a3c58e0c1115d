"""Command lines of child processes that end with their parent."""

import os
import sys
from collections.abc import Sequence

# A job whose sweep is killed receives SIGTERM (prctl's PR_SET_PDEATHSIG): it saves and stops, and
# the same command resumes it.
_PROGRAM = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGTERM); "
    "os.getppid() == int(sys.argv.pop(1)) or sys.exit('who started this has gone'); "
    "from sparring.cli.main import main; main()"
)


def program(arguments: Sequence[str]) -> list[str]:
    """Return the command line that runs `sparring arguments...`.

    The process receives SIGTERM if this one is killed.
    """
    return [sys.executable, "-P", "-c", _PROGRAM, str(os.getpid()), *arguments]

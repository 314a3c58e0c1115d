"""Words meant for the user: an exception, warnings said once, and "Did you mean ...?" hints."""

import difflib
import functools
import logging
from collections.abc import Sequence

_log = logging.getLogger("sparring")


def near(name: str, known: Sequence[str]) -> str:
    """Return "Did you mean ...? ", or nothing if no known name is similar.

    Whole names are compared first, then their last dotted parts.
    """
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    if not found:
        by_last = {k.rpartition(".")[2]: k for k in reversed(known)}
        found = [
            by_last[k]
            for k in difflib.get_close_matches(name.rpartition(".")[2], by_last, n=1, cutoff=0.6)
        ]
    return f"Did you mean {found[0]}? " if found else ""


def listed(names: Sequence[str]) -> str:
    """Return "There are: a, b."."""
    return f"There are: {', '.join(names)}."


class UserError(Exception):
    """Error the user can mend: the message says what is wrong, where, and what to do.

    The command line prints it as one line, without a traceback; a traceback indicates a fault of
    this package.
    """

    # Keeps Keras 2 and 3 from adding the call's arguments to the line when it leaves a layer
    _keras_call_info_injected = True
    exit_code = 2  # of the command: 2 before anything was done, 1 once a run had begun


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning, of equal ones the first only."""
    _log.warning("%s", message)

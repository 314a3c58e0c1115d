"""The one exception whose text is meant for the person at the keyboard."""

import difflib
from collections.abc import Sequence


def near(name: str, known: Sequence[str]) -> str:
    """ "Did you mean ...? ", or nothing: the known name spelled most alike, else the one whose last
    part is.
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
    """ "There are: a, b."."""
    return f"There are: {', '.join(names)}."


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do.

    The command line prints it as one line, without a traceback. A traceback is for our own faults.
    """

    # Or Keras 2 and 3, passing it on out of a layer, would wrap the line in the call's arguments.
    _keras_call_info_injected = True
    exit_code = 2  # of the command: 2 before anything was done, 1 once a run had begun

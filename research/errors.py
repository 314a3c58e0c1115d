"""Words meant for the user: an exception, warnings said once, and "Did you mean ...?" hints."""

import difflib
import functools
import logging
import os
import sys
import sysconfig
import traceback
from collections.abc import Sequence

_AUTOGRAPH = "__autograph_generated_file"  # code that TensorFlow made of code
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


def tell(error: UserError) -> None:
    """Print an error as its one line, after what led to it if HYDRA_FULL_ERROR=1 asks for that."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error)
    print(f"sparring: {error}", file=sys.stderr)


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning, of equal ones the first only."""
    _log.warning("%s", message)


def in_own_code(error: BaseException, doing: str) -> UserError | None:
    """Return the one-line error for a fault that was raised in the user's own code, or by a library
    that it called; None if no code of theirs had a part in it, or it called Sparring's again.

    The line names each place in their code that the error passed through. `doing` says what was
    done when it was raised.
    """
    frames = traceback.extract_tb(error.__traceback__)
    raised_in = [
        frame.f_globals.get("__name__") for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    ours = [str(module).partition(".")[0] == "sparring" for module in raised_in]
    packages = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    theirs = [
        not own
        and not frame.filename.startswith((*packages, "<"))
        and _AUTOGRAPH not in frame.filename
        for own, frame in zip(ours, frames, strict=True)
    ]
    last = max((i for i, own in enumerate(ours) if own), default=-1)
    if not any(theirs[last + 1 :]):
        return None
    places = [
        f"{frame.filename}, line {frame.lineno}, in {frame.name}"
        for own, frame in zip(theirs, frames, strict=True)
        if own
    ]
    lines = [s for s in str(error).splitlines() if not s.startswith("  In call to configurable ")]
    said = " ".join(" ".join(lines).split())
    return UserError(
        f"{doing}: {type(error).__name__}: {said} ({'; '.join(places)}). "
        "HYDRA_FULL_ERROR=1 shows the traceback."
    )

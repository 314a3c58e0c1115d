"""What is known of the request that is being answered, gathered on its way for the log and the
counters.
"""

import contextvars
from typing import Any

_KNOWN: contextvars.ContextVar[dict[str, Any]] = contextvars.ContextVar("about")


def begin(**known: Any) -> dict[str, Any]:
    """A new request: what is noted from here on, in this task, is about it. Returns what will be
    known of it.
    """
    _KNOWN.set(known)
    return known


def known(name: str) -> Any:
    """What has been noted of the request under a name; None if nothing was."""
    return _KNOWN.get().get(name)


def note(**known: Any) -> None:
    """More about the request."""
    _KNOWN.get().update(known)

"""Context of the current request, gathered on its way for the log and the metrics."""

import contextvars
from typing import Any

_KNOWN: contextvars.ContextVar[dict[str, Any]] = contextvars.ContextVar("about")


def begin(**known: Any) -> dict[str, Any]:
    """Begin the context of a new request in this task, and return it."""
    _KNOWN.set(known)
    return known


def known(name: str) -> Any:
    """Return the value noted under a name; None if there is none."""
    return _KNOWN.get().get(name)


def note(**known: Any) -> None:
    """Add to the context of the request."""
    _KNOWN.get().update(known)

"""Words for what this process is doing, for whoever asks: a progress line, an answer to Ctrl-C."""

import contextlib
from collections.abc import Iterator

_words: list[str] = []


@contextlib.contextmanager
def doing(words: str) -> Iterator[None]:
    """Say that the process is `words` ("evaluating") while the context lasts."""
    _words.append(words)
    try:
        yield
    finally:
        _words.pop()


def say(words: str) -> None:
    """Say more of what the process is doing now, such as how far it is."""
    if _words:
        _words[-1] = words


def now() -> str:
    """Return what the process is doing, or ""."""
    return _words[-1] if _words else ""

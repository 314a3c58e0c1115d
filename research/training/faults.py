"""Faults that are known by their kind: each is one line in place of a traceback."""

import contextlib
from collections.abc import Iterator

from sparring.errors import UserError, in_own_code

_SAID = 300  # characters of a library's own words that are passed on


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn running out of memory, of a device or of this machine, and what is raised in the user's
    own code, into a UserError of one line.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        import tensorflow as tf

        for cause in _chain(error):
            if isinstance(cause, MemoryError | tf.errors.ResourceExhaustedError):
                said = " ".join(str(cause).split())[:_SAID] or type(cause).__name__
                raise UserError(
                    "Out of memory. Less is taken by a smaller trainer.num_envs, "
                    "trainer.batch_size, trainer.capacity or game.batch_size, whichever the run "
                    f"has, or by a smaller network. In its own words: {said}"
                ) from error
        theirs = in_own_code(error, "while training")
        if theirs is not None:
            raise theirs from error
        raise


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__

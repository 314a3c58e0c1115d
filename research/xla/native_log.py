"""Filter of what native code logs while TensorFlow is imported and at XLA's first compilation.

TensorFlow's own variable, TF_CPP_MIN_LOG_LEVEL, does not reach all of it.
"""

import contextlib
import importlib.abc
import importlib.machinery
import os
import re
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
# Notes and warnings in the two forms that they have, and errors of every build for GPUs
_NOISE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|[IW]\d{4} \d\d:"
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IW] "
    rb"|.*Unable to register cu\w+ factory"
    rb"|To enable the following instructions: "
)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Hold back what is written to standard error, and then pass on all but notes and warnings.

    A user who asks for more, by TF_CPP_MIN_LOG_LEVEL below 3, sees all of it as it comes.
    """
    try:
        shown = os.dup(2) if os.environ.get(_LEVEL, "3") >= "3" else None
    except OSError:  # there is no standard error
        shown = None
    if shown is None:
        yield
        return
    import tempfile  # here, as `import sparring` alone shall take no time

    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(shown, 2)
            os.close(shown)
            held.seek(0)
            kept = [line for line in held if not _NOISE.match(line)]
            if kept:
                os.write(2, b"".join(kept))


class QuietImport(importlib.abc.MetaPathFinder):
    """Finder that has TensorFlow imported with `held_back`, wherever that happens."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return TensorFlow's specification, found by the other finders, with a quiet loader."""
        if name != "tensorflow":
            return None
        # By name: the package may be loaded twice, as a folder and as what is installed
        others = [f for f in sys.meta_path if type(f).__name__ != type(self).__name__]
        specs = (finder.find_spec(name, path, target) for finder in others)
        spec = next((found for found in specs if found is not None), None)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def quietly(module: ModuleType) -> None:
                with held_back():
                    execute(module)

            loader.exec_module = quietly
        return spec

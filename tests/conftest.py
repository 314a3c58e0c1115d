"""Settings of all tests, made before TensorFlow or pygame is imported by any of them."""

import logging
import os
import resource
from collections.abc import Callable, Iterator

import pytest

import sparring  # noqa: F401  chooses legacy Keras, which works only before TensorFlow is imported
from sparring.distribute import strategies

# Environments draw and play sound through SDL; without a screen or a sound card it would complain
# on every render.
os.environ["SDL_VIDEODRIVER"] = "dummy"
os.environ["SDL_AUDIODRIVER"] = "dummy"
os.environ["no_proxy"] = (
    "127.0.0.1,localhost"  # servers of tests are asked straight, whatever proxy this machine has
)


# Tests in which TensorFlow's version plays no part: .ci/run has them run on one of the two
EITHER = (
    "tests/config/",
    "tests/envs/gymnasium_bridge/",
    "tests/report/",
    "tests/sweep/",
    "tests/cli/test_main.py",
    "tests/cli/test_search.py",
    "tests/test_docs.py",
    "tests/test_imports.py",
    "tests/test_setup.py",
    "tests/test_words.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need to run on one TensorFlow only."""
    for item in items:
        runs = item.name.startswith("test_an_experiment_runs")
        if item.nodeid.startswith(EITHER) and not runs:
            item.add_marker(pytest.mark.either)


# For tests of replicas; what uses the first part alone computes as if it were the only one
strategies.divide_cpu(2)


@pytest.fixture
def limit() -> Iterator[Callable[[int], None]]:
    """Sets the size beyond which this process can write no file, which fails as a full disk does;
    -1: no limit.

    Handlers that other libraries gave the root logger write to files of pytest's, which the limit
    would stop too.
    """
    root = logging.getLogger()
    theirs = [handler for handler in root.handlers if type(handler) is logging.StreamHandler]
    for handler in theirs:
        root.removeHandler(handler)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(
        resource.RLIMIT_FSIZE, (size if size >= 0 else soft, hard)
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for handler in theirs:
        root.addHandler(handler)

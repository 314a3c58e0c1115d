"""Random numbers one by one are those of the matrix."""

import numpy as np
import pytest

from sparring.envs.compiled.sampling import uniforms
from sparring.xla import random


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_vectors_are_the_columns_of_the_matrix(count):
    keys = random.members(random.stream(3, "test"), 50)
    vectors = uniforms(keys, count)
    assert len(vectors) == count
    np.testing.assert_array_equal(np.stack(vectors, axis=1), random.uniform(keys, count))

"""Names above the columns of a grid of images."""

import numpy as np
import pytest

from sparring.data.pictures import labelled_columns


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_names_stand_above_their_columns(channels: int) -> None:
    grid = np.full((20, 90, channels), 7, np.uint8)
    found = labelled_columns(grid, ["ant", "", "bee"])
    assert found.shape == (34, 90, channels)
    np.testing.assert_array_equal(found[14:], grid)
    dark = (found[:14, :, 0] < 128).any(axis=0)
    assert dark[:30].any()
    assert not dark[30:60].any()
    assert dark[60:].any()
    if channels == 4:
        assert (found[:14, :, 3] == 255).all()


def test_columns_too_narrow_for_a_name_are_enlarged() -> None:
    # two names of 5 letters at 6 pixels need 60, 32 are there: twice as large
    found = labelled_columns(np.zeros((10, 32, 1), np.uint8), ["horse", "sheep"])
    assert found.shape == (14 + 20, 64, 1)

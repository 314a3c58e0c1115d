"""Pictures of examples, pixel by pixel."""

import numpy as np
import pytest

from sparring.gans import image_grids


def test_a_grid_has_its_images_row_by_row_with_white_between() -> None:
    images = np.linspace(-1.0, 1.0, 5, dtype=np.float32).reshape(5, 1, 1, 1) * np.ones(
        (5, 126, 126, 1), np.float32
    )
    picture = image_grids.grid(images, 2)
    assert picture.shape == (3 * 128, 2 * 128, 1)
    centers = picture[64::128, 64::128, 0]
    # -1 -0.5; 0 0.5; 1 and nothing
    np.testing.assert_array_equal(centers, [[0, 64], [128, 191], [255, 255]])
    assert picture[127, 64, 0] == picture[64, 0, 0] == 255


def test_small_images_are_enlarged_and_channels_are_made_to_fit() -> None:
    # 20 pixels a side, 13 times that is 260
    small = image_grids.grid(np.zeros((4, 8, 8, 3), np.float32), 2)
    assert small.shape == (260, 260, 3)
    two = image_grids.grid(np.ones((1, 300, 300, 2), np.float32), 1)
    assert two.shape == (302, 302, 3)
    assert tuple(two[150, 150]) == (255, 255, 0)
    assert image_grids.grid(np.ones((1, 300, 300, 5), np.float32), 1).shape[-1] == 3


def test_a_scatter_shows_points_where_they_are_and_leaves_out_those_beyond() -> None:
    real = np.array([[-1.0, -1.0], [1.0, 1.0]])
    picture = image_grids.scatter(real, np.array([[0.0, 1.0], [50.0, 0.0], [np.inf, 0.0]]))
    # a side of 384 is 2.6 wide: the middle is 192, one unit 384 / 2.6 = 147.7
    grey = np.argwhere((picture == image_grids._REAL).all(axis=-1))
    orange = np.argwhere((picture == image_grids._FAKE).all(axis=-1))
    # (1, 1): above, right
    np.testing.assert_allclose(grey[:4].mean(axis=0), [192 - 147.7, 192 + 147.7], atol=1.5)
    np.testing.assert_allclose(orange.mean(axis=0), [192 - 147.7, 192], atol=1.5)
    assert len(orange) == 4


def test_ways_between_latents_keep_their_length() -> None:
    a = np.array([[3.0, 0.0], [1.0, 1.0]])
    b = np.array([[0.0, 3.0], [1.0, 1.0]])
    way = image_grids.between(a, b, 3).reshape(2, 3, 2)
    np.testing.assert_allclose(
        way[0], [[3.0, 0.0], [3.0 * 0.5**0.5, 3.0 * 0.5**0.5], [0.0, 3.0]], atol=1e-6
    )
    np.testing.assert_allclose(way[1], [[1.0, 1.0]] * 3)


def test_pictures_beside_each_other_have_a_gap() -> None:
    found = image_grids.beside(np.zeros((64, 64, 1), np.uint8), np.zeros((64, 64, 1), np.uint8))
    assert found.shape == (64, 64 + 2 + 64, 1)
    assert found[0, 64, 0] == 255
    with pytest.raises(ValueError, match="dimension"):
        image_grids.beside(np.zeros((64, 64, 1), np.uint8), np.zeros((64, 64, 3), np.uint8))

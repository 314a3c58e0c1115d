"""Samples of images and of maps, as they are written."""

import numpy as np
import pytest

from sparring.data import lake_maps
from sparring.errors import UserError
from sparring.gans.data.frozen_lake_maps import FrozenLakeMaps, one_hot
from tests.helpers.toy_gans import Images, make


def test_images_are_bytes_and_fewer_are_the_first_of_more() -> None:
    trainer = make(data=Images(), conditional=True, compile="graph")
    many = trainer.generate(70, seed=1)
    few = trainer.generate(3, seed=1)
    assert (many.images.shape, many.images.dtype) == ((70, 8, 8, 1), np.uint8)
    np.testing.assert_array_equal(few.images, many.images[:3])
    np.testing.assert_array_equal(many.arrays["images"], many.images)
    assert set(many.arrays["labels"]) == {0, 1, 2}
    assert (trainer.generate(3, seed=2).images != few.images).any()
    one = trainer.generate(4, seed=1, label="2")
    assert one.arrays["labels"].tolist() == [2] * 4
    # The same latents: an example of that class is what it was
    kept = many.arrays["labels"][:4] == 2
    np.testing.assert_array_equal(one.images[kept], many.images[:4][kept])
    with pytest.raises(UserError, match="--class 3: no such class"):
        trainer.generate(1, 0, "3")


def test_a_generator_that_knows_no_classes_says_so() -> None:
    trainer = make(data=Images(), compile="graph")
    assert "labels" not in trainer.generate(2, 0).arrays
    with pytest.raises(UserError, match=r"game\.conditional=true"):
        trainer.generate(1, 0, "1")


def test_maps_are_written_in_letters() -> None:
    data = FrozenLakeMaps(0, size=3, train=10, test=10)
    maps = lake_maps.random_maps(5, 3, 9, corners=False)
    found = data.drawn(0.6 * one_hot(maps) + 0.1)
    assert found.arrays["maps"].tolist() == lake_maps.to_rows(maps).tolist()
    assert found.images.shape == (5, 36, 36, 3)

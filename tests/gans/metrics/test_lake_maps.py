"""Generated maps counted by hand; and what the generator of one-hots gives."""

import numpy as np
import pytest
import tensorflow as tf

from sparring.data import lake_maps
from sparring.errors import UserError
from sparring.gans.data.frozen_lake_maps import FrozenLakeMaps, one_hot, seen
from sparring.gans.data.mixtures import ring
from sparring.gans.metrics.lake_maps import LakeMaps
from sparring.gans.networks.categorical import CategoricalGenerator


def test_shares_are_counted_by_hand() -> None:
    data = FrozenLakeMaps(0, size=2, train=3, test=2, corners=True)
    known = data.maps(data.examples("train")[0])
    # Of the three maps of two cells each way that can be solved, those in the corners' way
    every = {"".join(rows) for rows in lake_maps.to_rows(known).tolist()}
    assert every <= {"SFFG", "SFHG", "SHFG"}
    own = known[0]
    flipped = own[::-1, ::-1]  # the goal first: valid, and not among those
    alone = np.full((2, 2), lake_maps.ICE, np.uint8)
    maps = np.stack([own, own, flipped, alone])
    metric = LakeMaps(data, samples=4)
    found = metric(lambda count: (one_hot(maps)[:count], np.zeros(count)))
    assert found["gan/valid"] == 0.75
    assert found["gan/novel"] == pytest.approx(1 / 3)
    assert found["gan/distinct"] == 0.75
    assert found["gan/fresh"] == 0.25
    assert found["gan/way"] == found["gan/way_floor"] == 2.0
    pictures = metric.pictures(lambda count: (one_hot(maps)[:count], np.zeros(count)))
    assert pictures.keys() == {"gan/maps", "gan/real_maps"}
    nothing = metric(lambda count: (one_hot(alone[np.newaxis]), np.zeros(1)))
    assert (nothing["gan/valid"], nothing["gan/novel"], nothing["gan/way"]) == (0.0, 0.0, 0.0)


def test_no_test_map_is_a_training_map_and_all_can_be_solved() -> None:
    data = FrozenLakeMaps(0, size=4, train=500, test=300)
    train, test = (data.maps(data.examples(split)[0]) for split in ("train", "test"))
    assert (len(train), len(test)) == (500, 300)
    assert not seen(test, train).any()
    assert lake_maps.is_valid(np.concatenate([train, test])).all()
    assert data.shape == (64,)
    np.testing.assert_array_equal(one_hot(train).reshape(-1, 4).sum(axis=1), 1.0)
    other = FrozenLakeMaps(1, size=4, train=500, test=300)
    assert other.fingerprint == data.fingerprint


def test_what_cannot_be_is_refused_in_a_line() -> None:
    with pytest.raises(UserError, match="choose data=frozen_lake_maps"):
        LakeMaps(ring())
    with pytest.raises(UserError, match="too few maps differ"):
        FrozenLakeMaps(0, size=2, train=100, test=100, corners=True)


@pytest.mark.parametrize("hard", [True, False])
def test_choices_are_one_hot_and_have_the_softmaxs_gradient(hard: bool) -> None:
    generator = CategoricalGenerator((6,), categories=3, hard=hard, units=[])
    latents = tf.constant([[1.0, 0.0]])
    generator(latents, ())
    # Logits 0, log 2, log 5 of the first choice, 0, 0, log 2 of the second
    logits = np.log([1.0, 2.0, 5.0, 1.0, 1.0, 2.0])
    generator.out.set_weights([np.stack([logits, np.zeros(6)]), np.zeros(6)])
    with tf.GradientTape() as tape:
        tape.watch(latents)
        examples = generator(latents, ())
        first = examples[0, 2]
    soft = [0.125, 0.25, 0.625, 0.25, 0.25, 0.5]
    expected = [0.0, 0.0, 1.0, 0.0, 0.0, 1.0] if hard else soft
    np.testing.assert_allclose(examples[0], expected, atol=1e-6)
    # d p3 / d x = p3 (log 5 - sum p log) = 0.625 (log 5 - (0.25 log 2 + 0.625 log 5))
    slope = 0.625 * (np.log(5.0) - (0.25 * np.log(2.0) + 0.625 * np.log(5.0)))
    np.testing.assert_allclose(tape.gradient(first, latents)[0, 0], slope, rtol=1e-5)

"""An environment of which a part is seen is the whole one otherwise."""

import numpy as np
import pytest

from sparring.envs.compiled.classic_control import CartPole
from sparring.envs.compiled.partial_observation import Masked
from sparring.envs.compiled.toys import Memory
from sparring.envs.testing.check import check_environment
from sparring.errors import UserError


def test_it_is_the_whole_one_without_what_it_hides() -> None:
    whole = CartPole()
    masked = Masked(CartPole(), [0, 2])
    assert masked.observation_space.shape == (2,)
    np.testing.assert_array_equal(
        masked.observation_space.high, whole.observation_space.high[[0, 2]]
    )
    assert (masked.max_episode_steps, masked.name) == (500, "CartPole-v1, masked")
    one, other = (env.vector(3, 5, compile="graph") for env in (whole, masked))
    np.testing.assert_array_equal(one.reset()[:, [0, 2]], other.reset())
    for actions in np.random.default_rng(0).integers(2, size=(60, 3)):
        theirs = one.step(actions)
        ours = other.step(actions)
        np.testing.assert_array_equal(theirs.observation[:, [0, 2]], ours.observation)
        for a, b in zip(theirs[1:], ours[1:], strict=True):
            np.testing.assert_array_equal(a, b)
    picture = other.render()
    assert picture is not None
    np.testing.assert_array_equal(one.render(), picture)


def test_it_keeps_an_environments_promises_and_its_own_limit() -> None:
    check_environment(Masked(Memory(), [4, 0], max_episode_steps=5))


@pytest.mark.parametrize("keep", [[], [4], [-1]])
def test_what_is_not_there_cannot_be_kept(keep: list[int]) -> None:
    with pytest.raises(UserError, match=r"env\.keep=.*CartPole-v1 observes"):
        Masked(CartPole(), keep)

"""An environment that has each action twice is the one inside, by the action that is allowed."""

import numpy as np
import pytest

from sparring.envs.compiled.classic_control import CartPole, Pendulum
from sparring.envs.compiled.doubled_actions import DoubledActions
from sparring.envs.testing.check import check_environment
from sparring.errors import UserError


@pytest.mark.parametrize("masked", [True, False])
def test_an_allowed_action_does_what_it_does_inside_and_another_what_0_does(masked: bool) -> None:
    rng = np.random.default_rng(0)
    one = CartPole().vector(4, 5, compile="graph")
    other = DoubledActions(CartPole(), masked).vector(4, 5, compile="graph")
    inside = one.reset()
    seen = other.reset()
    uppers = 0
    for chosen in rng.integers(4, size=(60, 4)):
        upper = inside[:, 0] >= 0.0
        uppers += upper.sum()
        if masked:
            # Of actions 0 to 3, the last two where the cart is at the right
            expected = np.where(upper[:, None], [[0, 0, 1, 1]], [[1, 1, 0, 0]])
            np.testing.assert_array_equal(seen["action_mask"], expected)
            seen = seen["observation"]
        np.testing.assert_array_equal(seen, inside)
        inner = np.where((chosen >= 2) == upper, chosen % 2, 0)
        theirs = one.step(inner)
        ours = other.step(chosen)
        np.testing.assert_array_equal(ours.terminated, theirs.terminated)
        inside = theirs.observation
        seen = ours.observation
    assert 0 < uppers < 240


def test_it_keeps_an_environments_promises_and_its_own_limit() -> None:
    check_environment(DoubledActions(CartPole(), max_episode_steps=5))


def test_other_actions_are_refused() -> None:
    with pytest.raises(UserError, match=r"env\.environment: Pendulum-v1 observes .* acts in Box"):
        DoubledActions(Pendulum())

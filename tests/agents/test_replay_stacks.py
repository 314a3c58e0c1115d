"""Stacks of frames are kept as single frames in replay, and come out of it as they went in."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring import frame_stacks
from sparring.agents.replay import Ring, Rows, row_bytes
from sparring.envs.compiled.frame_stack import Stacked
from sparring.envs.compiled.toys import Catch
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.errors import UserError
from sparring.xla import random

pytestmark = pytest.mark.long

CHOICE: spaces.Discrete = spaces.Discrete(5)
KEY = random.stream(11, "replay")


def numbers(frames: int) -> frame_stacks.FrameStack:
    return frame_stacks.FrameStack(spaces.Box(-1e9, 1e9, (1,), np.float32), frames)


def test_stacks_by_hand():
    """One environment: 10, 11, 12 and an end; 13, 14, which goes on. Stacks of three."""
    stacks = [[10, 10, 10], [10, 10, 11], [10, 11, 12], [13, 13, 13], [13, 13, 14]]
    ring = Ring(100, 1, numbers(3), CHOICE)
    flag = np.zeros((4, 1), bool)
    over, first = flag.copy(), flag.copy()
    over[1] = True  # the step to 12
    first[2] = True  # the reset to 13
    action = np.zeros((4, 1), np.int32)
    seen = np.array(stacks, np.float32)[:, np.newaxis]
    ring.write(seen, action, np.zeros((4, 1), np.float32), over, flag, first)
    assert ring.observation.numpy()[:5, 0].tolist() == [10, 11, 12, 13, 14]
    slot = tf.constant([0, 1, 3], tf.int64)
    batch = ring.gather(Rows(slot, tf.zeros_like(slot)))
    assert batch.observation.numpy().tolist() == [stacks[0], stacks[1], stacks[3]]
    assert batch.next_observation.numpy().tolist() == [stacks[1], stacks[2], stacks[4]]


@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_what_went_in_comes_out_around_the_ring(mode):
    """Three environments, 60 slots through a ring of 9: each stack is that of its own episode."""
    rng = np.random.default_rng(0)
    count, envs = 60, 3
    space = numbers(3)
    over = rng.random((count, envs)) < 0.2
    first = np.roll(over, 1, axis=0)
    first[0] = False
    frame = (1000.0 * np.arange(envs) + np.arange(count + 1)[:, None])[..., None].astype(np.float32)
    seen = [frame_stacks.opened(space, frame[0])]
    for t in range(count):
        seen.append(frame_stacks.pushed(space, seen[-1], frame[t + 1], first[t]))
    stacks = np.array(seen)  # [61, 3, 3]
    by_newest = {float(s[-1]): s.tolist() for s in stacks.reshape(-1, 3)}
    ring = Ring(9 * envs, envs, space, CHOICE)

    def sample(key: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        batch = ring.sample(key, 300, 2)
        return batch.observation, batch.next_observation

    if mode == "xla":
        sample = tf.function(sample, jit_compile=True, autograph=False)
    none = np.zeros((count, envs), bool)
    action = np.zeros((count, envs), np.int32)
    reward = np.zeros((count, envs), np.float32)
    t = 0
    for length in [2, 1, 3] * 10:
        part = slice(t, t + length)
        ring.write(
            stacks[t : t + length + 1], *(x[part] for x in (action, reward, over, none, first))
        )
        t += length
        for given in sample(random.fold(KEY, t)):
            found = np.unique(np.asarray(given), axis=0).tolist()
            assert all(stack == by_newest[stack[-1]] for stack in found)
    starts = {stack[-1] % 1000 for stack in sample(KEY)[0].numpy().tolist()}
    begun = {t for t in range(51, 59) if not first[t].all()}  # nine slots, sums of two steps
    assert starts == begun


def test_a_stack_takes_the_bytes_of_one_frame():
    """A game's picture of 84 x 84 bytes, an action and a reward of 4, two flags: 7,066 bytes."""
    box = spaces.Box(0, 255, (84, 84, 1), np.uint8)
    space = frame_stacks.FrameStack(box, 4)
    assert (space.shape, row_bytes(space, CHOICE)) == ((84, 84, 4), 84 * 84 + 10)
    ring = Ring(6, 2, space, CHOICE)
    assert ring.bytes_per_transition == 84 * 84 + 10
    assert ring.slots == 3 + 1 + 3  # the transitions, the open slot, what stacks look back to
    with pytest.raises(UserError, match=r"env.frame_stack: .* not of one number"):
        frame_stacks.stacked(spaces.Box(0, 1, ()), 2)


def test_a_restart_leaves_what_the_broken_episode_came_to():
    """A restarted collector shows zeros before its reset: 11 is where the step from 10 led."""
    ring = Ring(100, 1, spaces.Box(-1e9, 1e9, (1,), np.float32), CHOICE)
    no, yes = np.zeros((1, 1), bool), np.ones((1, 1), bool)
    rest = np.zeros((1, 1), np.int32), np.ones((1, 1), np.float32), no, no
    ring.write(np.float32([[[10]], [[11]]]), *rest, no)
    ring.write(np.float32([[[0]], [[20]]]), *rest, yes)
    batch = ring.gather(Rows(tf.constant([0], tf.int64), tf.constant([0], tf.int64)))
    assert batch.next_observation.numpy().tolist() == [[11]]


def test_a_compiled_environment_shows_its_newest_observations():
    """Catch's board without a stack, stacked by hand, over the end of an episode."""
    plain, outer = Catch(), Stacked(Catch(), 3)
    space = outer.observation_space
    own = plain.vector(4, seed=3)
    stacks = outer.vector(4, seed=3)
    wanted = frame_stacks.opened(space, own.reset())
    np.testing.assert_array_equal(stacks.reset(), wanted)
    rng = np.random.default_rng(0)
    for _ in range(25):
        actions = rng.integers(0, 3, 4)
        step, shown = own.step(actions), stacks.step(actions)
        wanted = frame_stacks.pushed(space, wanted, step.observation, step.first)
        np.testing.assert_array_equal(shown.observation, wanted)
        np.testing.assert_array_equal(shown.reward, step.reward)


def test_an_environment_of_the_host_is_stacked_as_gymnasium_does_and_put_back_exactly():
    environment = Gymnasium("CartPole-v1", frame_stack=3)
    vector = environment.vector(2, seed=5)
    own = [gymnasium.wrappers.FrameStackObservation(gymnasium.make("CartPole-v1"), 3) for _ in "ab"]
    wanted = np.array([env.reset(seed=5 + i)[0].ravel() for i, env in enumerate(own)])
    np.testing.assert_array_equal(vector.reset(), wanted)
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 2, (60, 2))
    middle = None
    for t, chosen in enumerate(actions):
        step = vector.step(chosen)
        for i, env in enumerate(own):
            if step.first[i]:
                wanted[i] = env.reset()[0].ravel()
            else:
                wanted[i] = env.step(chosen[i])[0].ravel()
        np.testing.assert_array_equal(step.observation, wanted)
        if t == 40:
            middle = vector.snapshot()
    again = environment.vector(2, seed=5)
    assert again.restore(middle) == []
    for chosen in actions[41:]:
        step = again.step(chosen)
    np.testing.assert_array_equal(step.observation, wanted)
    vector.close()
    again.close()

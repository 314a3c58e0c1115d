"""Spaces as agents see them: worked examples, and gymnasium.spaces.utils.flatten as the reference
for the rest.
"""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces.utils import flatten
from gymnasium.vector.utils import concatenate, create_empty_array

from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.envs.gymnasium_bridge.spaces import (
    BoundAction,
    View,
    adapt_actions,
    adapt_observations,
)
from sparring.errors import UserError
from tests.helpers.toy_envs import Echo


def batch_of(space: gym.Space, samples: list) -> object:
    return concatenate(space, samples, create_empty_array(space, len(samples)))


def assert_batch(actual: np.ndarray, expected: list, dtype: type) -> None:
    assert actual.dtype == dtype
    np.testing.assert_array_equal(actual, np.array(expected))  # also compares shapes


def test_discrete_actions_count_from_zero_for_the_agent_and_from_start_for_the_environment():
    space, to_environment = adapt_actions(spaces.Discrete(3, start=5), "toy")
    assert space == spaces.Discrete(3)
    assert_batch(to_environment(np.array([0, 2, 1], np.int32)), [5, 7, 6], np.int64)


def test_multi_discrete_starts_are_added_choice_by_choice():
    space, to_environment = adapt_actions(spaces.MultiDiscrete([2, 3], start=[1, -1]), "toy")
    assert space == spaces.MultiDiscrete([2, 3])
    assert_batch(to_environment(np.array([[0, 0], [1, 2]], np.int32)), [[1, -1], [2, 1]], np.int64)


def test_choices_on_several_axes_are_one_axis_for_the_agent():
    space, to_environment = adapt_actions(spaces.MultiDiscrete([[2, 3], [4, 5]]), "toy")
    assert space == spaces.MultiDiscrete([2, 3, 4, 5])
    assert_batch(to_environment(np.array([[1, 2, 3, 4]])), [[[1, 2], [3, 4]]], np.int64)


@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_binary_actions_are_choices_of_two(shape):
    space, to_environment = adapt_actions(spaces.MultiBinary(shape), "toy")
    assert space == spaces.MultiDiscrete([2, 2, 2, 2])
    assert_batch(
        to_environment(np.array([[0, 1, 1, 0]])), np.reshape([0, 1, 1, 0], (1, *shape)), np.int8
    )


def test_box_actions_are_clipped_on_the_way_out_and_left_alone_where_they_came_from():
    space, to_environment = adapt_actions(
        spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 1.0]), dtype=np.float64), "t"
    )
    assert space == spaces.Box(np.array([-2, 0], np.float32), np.array([2, 1], np.float32))
    actions = np.array([[-3.0, 0.5], [1.5, 7.0]], np.float32)
    assert_batch(to_environment(actions), [[-2.0, 0.5], [1.5, 1.0]], np.float64)
    assert_batch(actions, [[-3.0, 0.5], [1.5, 7.0]], np.float32)


def test_clipping_uses_the_environments_own_bounds_not_their_float32_rounding():
    own = spaces.Box(-0.1, 0.1, (1,), np.float64)  # float32(0.1) = 0.100000001, which is outside
    space, to_environment = adapt_actions(own, "toy")
    assert space.high[0].astype(np.float64) > own.high[0]
    assert own.contains(to_environment(space.high[None])[0])


def test_a_copy_is_passed_on_even_when_nothing_needs_clipping():
    for own in (spaces.Box(-1, 1, (2,), np.float32), spaces.MultiDiscrete([3, 3])):
        _, to_environment = adapt_actions(own, "toy")
        actions = np.zeros((1, 2), own.dtype)
        assert not np.shares_memory(to_environment(actions), actions)


def test_whole_number_boxes_get_the_nearest_whole_number_in_bounds():
    space, to_environment = adapt_actions(spaces.Box(0, 255, (3,), np.uint8), "toy")
    assert space.dtype == np.float32
    assert_batch(
        to_environment(np.array([[-4.0, 1.6, 300.0]], np.float32)), [[0, 2, 255]], np.uint8
    )


def test_scalar_boxes_have_one_axis_for_the_agent():
    space, to_environment = adapt_actions(spaces.Box(-1, 1, (), np.float32), "toy")
    assert space.shape == (1,)
    assert_batch(to_environment(np.array([[0.5], [-9.0]], np.float32)), [0.5, -1.0], np.float32)
    observed = adapt_observations(spaces.Box(-1, 1, (), np.float32), "toy")
    assert observed.space.shape == (1,)
    assert_batch(observed.to_agent(np.array([0.5, 0.25], np.float32)), [[0.5], [0.25]], np.float32)


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (-np.inf, np.inf, np.float32),
        (0, np.inf, np.float32),
        (-1e300, 1e300, np.float64),
        (-3e38, 3e38, np.float32),
    ],
)
def test_box_actions_without_finite_bounds_are_refused_with_the_wrapper_that_gives_them(
    low, high, dtype
):
    with pytest.raises(
        UserError,
        match=r"toy takes Box actions without finite bounds.*gymnasium_bridge\.spaces\.BoundAction",
    ):
        adapt_actions(spaces.Box(low, high, (2,), dtype), "toy")


def test_bound_action_declares_the_bounds_that_were_missing():
    env = BoundAction(Echo(spaces.Box(-np.inf, np.inf, (2,), np.float32)), low=-1, high=[1, 2])
    assert env.action_space == spaces.Box(
        np.array([-1, -1], np.float32), np.array([1, 2], np.float32)
    )
    env.reset()
    np.testing.assert_array_equal(env.step(np.array([0.5, 2.0], np.float32))[0], [0.5, 2.0])
    with pytest.raises(UserError, match="this environment's are Discrete"):
        BoundAction(Echo(spaces.Discrete(2)), -1, 1)


SIZELESS = {
    "Text": spaces.Text(5),
    "Graph": spaces.Graph(spaces.Discrete(2), spaces.Discrete(2)),
    "Sequence": spaces.Sequence(spaces.Discrete(2)),
}


@pytest.mark.parametrize("kind", [*SIZELESS, "Dict", "Tuple"])
def test_other_action_spaces_are_refused_by_name(kind):
    space = {
        **SIZELESS,
        "Dict": spaces.Dict(a=spaces.Discrete(2)),
        "Tuple": spaces.Tuple([spaces.Discrete(2)]),
    }[kind]
    with pytest.raises(UserError, match=rf"toy takes {kind} actions.*env\.wrappers"):
        adapt_actions(space, "toy")


@pytest.mark.parametrize("kind", SIZELESS)
def test_sizeless_observations_are_refused_by_name_and_place(kind):
    with pytest.raises(
        UserError, match=rf"toy gives {kind} observations, which have no fixed size"
    ):
        adapt_observations(SIZELESS[kind], "toy")
    nested = spaces.Dict(seen=spaces.Tuple([spaces.Discrete(2), SIZELESS[kind]]))
    with pytest.raises(
        UserError, match=rf"toy gives {kind} observations at \['seen'\]\[1\], which"
    ):
        adapt_observations(nested, "toy")


def test_discrete_observations_are_one_hot_from_their_start():
    space, to_agent = adapt_observations(spaces.Discrete(3, start=-1), "toy")
    assert space == spaces.Box(0, 1, (3,), np.float32)
    assert_batch(to_agent(np.array([-1, 1, 0])), [[1, 0, 0], [0, 0, 1], [0, 1, 0]], np.float32)


def test_multi_discrete_observations_are_one_hots_side_by_side():
    _, to_agent = adapt_observations(spaces.MultiDiscrete([2, 3], start=[0, 4]), "toy")
    assert_batch(
        to_agent(np.array([[1, 4], [0, 6]])), [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]], np.float32
    )


def test_bytes_stay_bytes_and_everything_else_becomes_float32():
    image = spaces.Box(0, 255, (4, 5, 3), np.uint8)
    assert adapt_observations(image, "toy").space == image
    for dtype in (np.float16, np.float64, np.int8, np.int32, np.int64):
        space, to_agent = adapt_observations(spaces.Box(-3, 3, (2, 2), dtype), "toy")
        assert space == spaces.Box(-3, 3, (2, 2), np.float32)
        assert_batch(to_agent(np.full((2, 2, 2), -3, dtype)), np.full((2, 2, 2), -3), np.float32)


def test_bounds_beyond_float32_become_infinite():
    space = adapt_observations(spaces.Box(-1e300, 1e300, (1,), np.float64), "toy").space
    assert space.low[0] == -np.inf
    assert space.high[0] == np.inf


FLAT = {
    "discrete": spaces.Discrete(4, start=2),
    "multi discrete": spaces.MultiDiscrete([3, 2, 5]),
    "grid of choices": spaces.MultiDiscrete(np.array([[3, 2], [2, 4]])),
    "binary": spaces.MultiBinary(5),
    "binary grid": spaces.MultiBinary((2, 3)),
    "dict": spaces.Dict(
        b=spaces.Box(-1, 1, (2, 3), np.float64), a=spaces.Discrete(3), c=spaces.MultiBinary(2)
    ),
    "tuple": spaces.Tuple(
        [
            spaces.Discrete(2),
            spaces.Box(0, 255, (2, 2), np.uint8),
            spaces.Box(-1, 1, (), np.float32),
        ]
    ),
    "nested": spaces.Dict(
        z=spaces.Tuple(
            [
                spaces.Dict(q=spaces.Discrete(3), p=spaces.Box(0, 1, (2,))),
                spaces.MultiDiscrete([2, 3]),
            ]
        ),
        y=spaces.Box(-5, 5, (1,), np.int64),
    ),
}


@pytest.mark.parametrize("space", FLAT.values(), ids=FLAT)
def test_composite_observations_are_laid_out_as_gymnasium_flattens_them(space):
    space.seed(3)
    samples = [space.sample() for _ in range(20)]
    agent, to_agent = adapt_observations(space, "toy")
    flat = to_agent(batch_of(space, samples))
    assert flat.dtype == np.float32
    scale = np.ones(flat.shape[1], np.float32)
    if isinstance(space, spaces.Tuple):
        scale[2:6] = 255  # the bytes, between a choice of two and a number
    for row, sample in zip(flat, samples, strict=True):
        np.testing.assert_array_equal(row, flatten(space, sample).astype(np.float32) / scale)
        assert agent.contains(row)


@pytest.mark.parametrize(
    "space",
    [spaces.Box(-1, 1, (3,)), spaces.Box(0, 255, (3,), np.uint8), *FLAT.values()],
    ids=["float", "bytes", *FLAT],
)
def test_the_agents_array_is_never_the_environments(space):
    _, to_agent = adapt_observations(space, "toy")
    raw = batch_of(space, [space.sample(), space.sample()])
    leaves = list(_leaves(raw))
    assert leaves
    mine = to_agent(raw)
    assert not any(np.shares_memory(mine, leaf) for leaf in leaves)


def _leaves(raw):
    if isinstance(raw, dict | tuple):
        for child in raw.values() if isinstance(raw, dict) else raw:
            yield from _leaves(child)
    else:
        yield raw


# ---- pictures ------------------------------------------------------------------------------------


def byte_box(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


@pytest.mark.parametrize(
    ("shape", "seen"),
    [
        ((4, 84, 84), (84, 84, 4)),  # stacked grey frames, as Gymnasium stacks them
        ((3, 64, 96), (64, 96, 3)),
        ((3, 7, 7), (7, 7, 3)),
        ((4, 84, 84, 3), (84, 84, 12)),  # stacked colour frames
        ((4, 3, 84, 84), (84, 84, 12)),
        ((84, 84), (84, 84, 1)),
        ((84, 84, 3), (84, 84, 3)),
        ((10, 10, 4), (10, 10, 4)),  # a board, channels last
        ((7, 7, 3), (7, 7, 3)),
        ((10, 10, 10), (10, 10, 10)),
        ((4, 8), (4, 8)),
        ((12,), (12,)),
    ],
)
def test_pictures_are_turned_to_channels_last(shape, seen):
    for space in (byte_box(*shape), spaces.Box(0, 1, shape, np.float32)):
        if space.dtype == np.float32 and len(shape) == 2:
            continue  # a table as well as a picture
        agent, to_agent = adapt_observations(space, "toy")
        assert agent.shape == seen
        batch = to_agent(np.zeros((2, *shape), space.dtype))
        assert (batch.shape, batch.dtype) == ((2, *seen), space.dtype)


def test_a_turned_pixel_is_where_it_belongs(caplog):
    # Frame 2 of colour channel 1 at row 5, column 9: channel 2 * 3 + 1 of twelve
    one = np.zeros((1, 4, 84, 84, 3), np.uint8)
    one[0, 2, 5, 9, 1] = 77
    turned = adapt_observations(byte_box(4, 84, 84, 3), "toy").to_agent(one)
    assert turned[0, 5, 9, 7] == 77
    assert turned.sum() == 77
    first = np.zeros((1, 4, 84, 84), np.uint8)
    first[0, 3, 5, 9] = 77
    assert adapt_observations(byte_box(4, 84, 84), "A").to_agent(first)[0, 5, 9, 3] == 77
    said = "A: observations [4, 84, 84] are taken for pictures and turned to [84, 84, 4]"
    assert [said in message for message in caplog.messages].count(True) == 1
    assert adapt_observations(byte_box(4, 84, 84), "A", View("last")).space.shape == (4, 84, 84)
    assert adapt_observations(byte_box(10, 10, 10), "A", View("first")).to_agent(
        np.arange(1000).reshape(1, 10, 10, 10)
    )[0, 2, 3, 4] == (423 % 256)  # of [4, 2, 3]
    with pytest.raises(UserError, match=r"env.channels=middle: choose one of auto, first, last"):
        adapt_observations(byte_box(4, 84, 84), "A", View("middle"))


def test_bounds_are_turned_with_the_pictures():
    high = np.full((2, 20, 20), 9, np.float32)
    high[1] = 5
    agent = adapt_observations(spaces.Box(0, high, dtype=np.float32), "toy").space
    assert agent.shape == (20, 20, 2)
    np.testing.assert_array_equal(agent.high[3, 4], [9, 5])


def test_a_picture_among_others_is_scaled_and_told_of_and_alone_it_stays_a_picture(caplog):
    space = spaces.Dict(eye=byte_box(3, 64, 64), speed=spaces.Box(-9, 9, (2,)))
    agent, to_agent = adapt_observations(space, "B")
    assert agent.shape == (3 * 64 * 64 + 2,)
    raw = {"eye": np.full((1, 3, 64, 64), 51, np.uint8), "speed": np.full((1, 2), 7.0)}
    np.testing.assert_allclose(to_agent(raw)[0, [0, -1]], [0.2, 7.0])  # 51 / 255
    assert "B: the picture [3, 64, 64] at ['eye'] is divided by 255" in caplog.text
    assert "env.parts=keep network=parts keeps them apart" in caplog.text
    agent, to_agent = adapt_observations(spaces.Dict(eye=byte_box(3, 64, 64)), "B")
    assert (agent.shape, agent.dtype) == ((64, 64, 3), np.uint8)
    assert to_agent({"eye": raw["eye"]}).shape == (1, 64, 64, 3)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (spaces.Discrete(10**9), r"Discrete observations with 1000000000 values, .*\(4 GB\)"),
        (spaces.Dict(a=spaces.MultiDiscrete([2, 2 * 10**6])), "with 2000002 values"),
    ],
)
def test_choices_too_many_for_one_hot_are_refused_before_they_are_allocated(space, said):
    with pytest.raises(UserError, match=said):
        adapt_observations(space, "toy")


def test_actions_too_many_for_a_network_are_refused():
    with pytest.raises(UserError, match=r"takes Discrete\(1000000000\) actions"):
        adapt_actions(spaces.Discrete(10**9), "toy")


PARTS = spaces.Dict(
    eye=spaces.Box(0, 255, (6, 6, 3), np.uint8),
    arm=spaces.Dict(joint=spaces.Box(-1.0, 1.0, (2,), np.float32), grip=spaces.Discrete(3)),
)


def test_parts_stay_apart_under_the_path_to_them():
    agent, to_agent = adapt_observations(PARTS, "P", View(parts="keep"))
    assert {name: box.shape for name, box in agent.spaces.items()} == {
        "arm.grip": (3,),
        "arm.joint": (2,),
        "eye": (6, 6, 3),
    }
    samples = [PARTS.sample() for _ in range(2)]
    samples[1]["arm"]["grip"] = np.int64(2)
    seen = to_agent(batch_of(PARTS, samples))
    np.testing.assert_array_equal(seen["eye"], [s["eye"] for s in samples])
    np.testing.assert_array_equal(seen["arm.grip"][1], [0.0, 0.0, 1.0])
    assert (seen["eye"].dtype, seen["arm.joint"].dtype) == (np.uint8, np.float32)


def test_parts_are_kept_by_themselves_where_there_is_a_picture_among_them():
    auto = View(parts="auto")
    assert isinstance(adapt_observations(PARTS, "P", auto).space, spaces.Dict)
    assert adapt_observations(PARTS["arm"], "P", auto).space.shape == (5,)
    assert adapt_observations(spaces.Dict(eye=PARTS["eye"]), "P", auto).space.shape == (6, 6, 3)
    assert adapt_observations(PARTS, "P").space.shape == (6 * 6 * 3 + 5,)


def test_a_mask_of_actions_stays_beside_what_is_one_vector():
    space = spaces.Dict(
        a=spaces.Box(-1.0, 1.0, (2,)), b=spaces.Discrete(2), action_mask=spaces.MultiBinary(4)
    )
    agent, to_agent = adapt_observations(space, "P", View(parts="auto"))
    assert {name: box.shape for name, box in agent.spaces.items()} == {
        "action_mask": (4,),
        "observation": (4,),
    }
    one = {"a": np.float32([0.5, -0.5]), "b": np.int64(1), "action_mask": np.int8([1, 0, 1, 1])}
    seen = to_agent(batch_of(space, [one]))
    np.testing.assert_array_equal(seen["observation"], [[0.5, -0.5, 0.0, 1.0]])
    np.testing.assert_array_equal(seen["action_mask"], [[1, 0, 1, 1]])
    # A picture alone beside a mask is no part among others
    alone = spaces.Dict(eye=PARTS["eye"], action_mask=spaces.MultiBinary(4))
    shapes = adapt_observations(alone, "P", View(parts="auto")).space.spaces
    assert {name: box.shape for name, box in shapes.items()} == {
        "action_mask": (4,),
        "observation": (6, 6, 3),
    }
    # As it was before there were masks
    assert adapt_observations(space, "P").space.shape == (8,)


def test_an_info_without_the_mask_that_was_announced_is_one_line():
    with pytest.raises(UserError, match="a step's info has no action_mask; it has nothing"):
        Gymnasium("tests.helpers.toy_envs:Gates", {"masked": False}, action_mask=True)
    with pytest.raises(UserError, match="the actions are Box"):
        Gymnasium("Pendulum-v1", action_mask=True)
    with pytest.raises(UserError, match=r"env.parts=apart: choose one of auto, flat, keep"):
        Gymnasium("CartPole-v1", parts="apart")

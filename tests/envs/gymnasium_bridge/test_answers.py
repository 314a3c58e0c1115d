"""Odd answers of environments: read in the one way they can be meant, or refused by name."""

import numpy as np
import pytest
from gymnasium import spaces

from sparring.envs.gymnasium_bridge import answers
from sparring.envs.gymnasium_bridge.bridge import EnvironmentFault, Gymnasium
from tests.helpers.toy_envs import Counted

BOX = spaces.Box(0, 10, (2,), np.float32)


@pytest.mark.parametrize(
    ("reward", "terminated", "read"),
    [
        (2, 1, (2.0, True)),
        (np.float32(0.5), np.bool_(True), (0.5, True)),
        (np.array([3.0]), np.array(False), (3.0, False)),
        (np.ones((1, 1)), np.array([1]), (1.0, True)),
        (True, 0, (1.0, False)),
    ],
)
def test_rewards_and_ends_of_one_number_are_read_as_that_number(reward, terminated, read):
    answer = answers.of_step((np.zeros(2, np.float32), reward, terminated, False, None), BOX)
    assert answer[1:] == (*read, False)
    assert [type(value) for value in answer[1:]] == [float, bool, bool]


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (None, "the reward is None, where one number is expected"),
        ("much", "the reward is 'much'"),
        (np.ones(2), r"the reward is an array \[2\] of float64"),
        ({}, "the reward is {}"),
        (float("nan"), "the reward is nan, where a finite number is expected"),
        (-np.inf, "the reward is -inf"),
    ],
)
def test_rewards_that_are_no_number_are_refused(reward, said):
    with pytest.raises(answers.AnswerError, match=said):
        answers.of_step((np.zeros(2), reward, False, False, {}), BOX)


@pytest.mark.parametrize("flag", [None, 2, "yes", np.array([True, False]), 0.5])
def test_ends_that_are_neither_true_nor_false_are_refused(flag):
    with pytest.raises(answers.AnswerError, match=r"truncated is .*, where True or False"):
        answers.of_step((np.zeros(2), 0.0, False, flag, {}), BOX)


def test_answers_of_older_interfaces_are_refused_by_what_is_expected():
    with pytest.raises(answers.AnswerError, match=r"step\(\) returned a tuple of 4, where \(obs"):
        answers.of_step((np.zeros(2), 0.0, False, {}), BOX)
    with pytest.raises(answers.AnswerError, match=r"reset\(\) returned an array \[2\] of float64"):
        answers.of_reset(np.zeros(2), BOX)


@pytest.mark.parametrize(
    ("space", "given", "read"),
    [
        (BOX, [1, 2], np.array([1, 2], np.float32)),
        (BOX, np.array([1.0, 2.0]), np.array([1, 2], np.float32)),
        (spaces.Box(0, 255, (2,), np.uint8), np.array([3.0, 255.0]), np.array([3, 255], np.uint8)),
        (spaces.Box(0, 9, (), np.float32), np.array([4.0]), np.array(4, np.float32)),
        (spaces.Discrete(4), np.array([3]), np.array(3)),
        (spaces.MultiDiscrete([2, 3]), [1, 2], np.array([1, 2])),
    ],
)
def test_observations_are_read_in_their_spaces_own_types(space, given, read):
    value = answers.observation_of(given, space)
    assert (value.dtype, value.shape) == (read.dtype, read.shape)
    np.testing.assert_array_equal(value, read)


NESTED = spaces.Dict({"a": BOX, "b": spaces.Tuple([spaces.Discrete(3), BOX])})


@pytest.mark.parametrize(
    ("space", "given", "said"),
    [
        (BOX, np.zeros(3), r"the observation has the shape \[3\], where its space says \[2\]"),
        (BOX, None, "the observation"),
        (BOX, [1, [2, 3]], "is a list of 2, where float32"),
        (spaces.Box(0, 255, (1,), np.uint8), [0.5], "holds 0.5, which its space's uint8 cannot"),
        (spaces.Box(0, 255, (1,), np.uint8), [256], "holds 256"),
        (spaces.Discrete(4), 4, r"the observation is 4, outside its space Discrete\(4\)"),
        (spaces.Discrete(4, start=1), 0, "outside its space"),
        (spaces.MultiDiscrete([2, 3]), [1, 3], r"\[1, 3\], outside its space"),
        (NESTED, {"a": [0, 0]}, "lacks 'b'"),
        (NESTED, {"a": [0, 0], "b": (1,)}, r"the observation\['b'\] is a tuple of 1"),
        (NESTED, {"a": [0, 0], "b": (3, [0, 0])}, r"the observation\['b'\]\[0\] is 3"),
        (NESTED, [0, 0], "where a dict is expected"),
    ],
)
def test_observations_that_are_not_of_their_space_are_refused_by_place(space, given, said):
    with pytest.raises(answers.AnswerError, match=said):
        answers.observation_of(given, space)


class Answers(Counted):
    """A chain whose step number `at` (from 1) of an episode answers `what`."""

    def __init__(self, what: str, at: int = 1) -> None:
        super().__init__()
        self.what = what
        self.at = at

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        if self.taken != self.at:
            return observation, reward, terminated, truncated, info
        if self.what == "nan":
            return observation * np.nan, reward, terminated, truncated, info
        if self.what == "longer":
            return np.zeros(2), reward, terminated, truncated, info
        if self.what == "info":  # of one environment only, and of another type than before
            return observation, reward, terminated, truncated, {"position": {"x": [1]}, 3: self}
        return observation, None, terminated, truncated, info

    def close(self) -> None:
        raise AttributeError("the window was never opened")


NAME = "tests.envs.gymnasium_bridge.test_answers:Answers"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("nan", r"environment 0 \(Answers\) at step 2: the observation is not finite, .* nan at"),
        ("longer", r"environment 0 \(Answers\) at step 2: the observation has the shape \[2\]"),
        ("none", r"environment 0 \(Answers\) at step 2: the reward is None"),
    ],
)
def test_a_wrong_answer_is_one_line_with_environment_and_step(what, said, caplog):
    vector = Gymnasium(NAME, {"what": what, "at": 2}).vector(2, seed=0)
    vector.reset()
    vector.step(np.array([1, 1]))
    with pytest.raises(EnvironmentFault, match=said) as fault:
        vector.step(np.array([1, 1]))
    assert "\n" not in str(fault.value)
    assert "close() of Answers raised AttributeError: the window was never opened" in caplog.text


@pytest.mark.filterwarnings("ignore::UserWarning")  # Gymnasium's checker warns of both first
@pytest.mark.parametrize(
    ("what", "said"), [("none", "the reward is None"), ("longer", "has the shape")]
)
def test_a_first_step_that_is_wrong_is_told_before_training(what, said):
    with pytest.raises(EnvironmentFault, match=f"^env.id=Answers: .*{said}.*[.]$"):
        Gymnasium(NAME, {"what": what})


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_infos_of_any_type_and_a_close_that_raises_cost_nothing(mode):
    vector = Gymnasium(NAME, {"what": "info", "at": 2}, vectorization=mode).vector(2, seed=0)
    vector.reset()
    steps = [vector.step(np.array([1, 0])) for _ in range(3)]
    vector.close()
    # 10 * (position before) + action, of the one that goes right: 1, 11, 21
    np.testing.assert_array_equal([s.reward for s in steps], [[1, 0], [11, 0], [21, 0]])

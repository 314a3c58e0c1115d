"""Findings about environments whose every fault is known."""

import numpy as np
import pytest

from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.envs.testing import command
from sparring.envs.testing.check_host import findings
from tests.helpers.toy_envs import Counted


class Wrong(Counted):
    """A chain with one fault."""

    def __init__(self, fault: str, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.fault = fault

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        if self.fault == "random":
            reward = float(np.random.default_rng().random())
        if self.fault == "drifting":
            observation = observation + np.random.default_rng().random()
        if self.fault == "rich":
            reward *= 100
        if self.fault == "endless":
            self.position = 0.0
            terminated = False
        if self.fault == "nan" and self.taken == 2:
            observation = observation * np.nan
        return observation, reward, terminated, truncated, info

    def render(self):
        if self.fault == "blind":
            raise OSError("no display")
        return super().render()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("random", "The same seed and actions come out differently at step 1"),
        ("drifting", "The same seed and actions come out differently at step 1"),
        ("rich", "Rewards: from 0 to 2100. They are large"),  # (10 * 2 + 1) * 100
        ("endless", "none ended in 50 random steps, and there is no time limit"),
        ("nan", "the observation is not finite"),
        ("blind", "No videos: Wrong cannot be drawn: OSError: no display."),
    ],
)
def test_each_fault_is_found_and_nothing_else(fault, said):
    name = "tests.envs.testing.test_check_host:Wrong"
    problems = [f.text for f in findings(Gymnasium(name, {"fault": fault}), 50) if f.problem]
    assert len(problems) == 1
    assert said in problems[0]


def test_the_command_says_what_is_fine_and_ends_with_0(capsys):
    assert command.main(["env=gymnasium", "env.id=CartPole-v1", "--steps", "200"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "fine  Actions: Discrete(2)." in lines
    assert "fine  The same seed and actions give the same episodes: runs are exact." in lines
    assert any(line.startswith("fine  Rewards: from 1 to 1. They are all equal") for line in lines)
    assert [line[:4] for line in lines] == ["fine"] * len(lines)


def test_the_command_ends_with_1_where_something_is_to_be_mended(capsys):
    name = "env.id=tests.envs.testing.test_check_host:Wrong"
    assert command.main(["env=gymnasium", name, "+env.kwargs.fault=rich"]) == 1
    assert "mend  Rewards: from 0 to 2100" in capsys.readouterr().out

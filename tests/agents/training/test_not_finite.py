"""A number that is not finite, from a compiled environment, ends the run and says from where."""

import functools
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from sparring.agents.ppo import PPO
from sparring.agents.training.evaluation import EvaluationSettings
from sparring.agents.training.on_policy import OnPolicyTrainer
from sparring.envs.compiled.toys import Catch, CatchState
from sparring.errors import UserError
from sparring.networks.mlp import MLP
from sparring.storage.checkpoints import Checkpoints
from sparring.training.fit import fit

pytestmark = pytest.mark.long


class Broken(Catch):
    """Catch whose observation has a NaN where the ball is in row 8, the last but one."""

    def observe(self, state: CatchState) -> tf.Tensor:
        lost = tf.where(state.row == 8, float("nan"), 0.0)
        return super().observe(state) + lost[:, tf.newaxis]


def test_the_environment_is_named_and_the_checkpoint_from_before_is_kept(tmp_path: Path) -> None:
    def trainer(environment: Any) -> OnPolicyTrainer:
        tf.keras.utils.set_random_seed(0)
        return OnPolicyTrainer(
            functools.partial(PPO, normalize_observations=False),
            environment,
            functools.partial(MLP, (4,)),
            num_envs=2,
            rollout_steps=4,
            epochs=1,
            minibatches=1,
            total_steps=64,
            compile="graph",
            evaluation=EvaluationSettings(episodes=0),
        )

    # Row 8 is reached with the eighth step of each environment: in the second iteration of 8 steps
    with pytest.raises(UserError, match=r"Not finite between steps 8 and 16: ") as caught:
        fit(trainer(Broken()), tmp_path, log_every=8, checkpoint_every=8)
    assert Checkpoints(tmp_path / "checkpoints").steps() == [8]
    message = str(caught.value)
    assert "The last checkpoint from before is of step 8." in message
    # What the environment gave comes before what became of it
    assert message.split(": ")[1].startswith("a number in environments/"), message

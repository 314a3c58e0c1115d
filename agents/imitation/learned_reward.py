"""Reward that an earlier run of adversarial imitation learned, as a new agent's."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf

from sparring.agents.advantages import mean_of_valid
from sparring.agents.agent import Scalars
from sparring.agents.imitation import surface
from sparring.agents.imitation.adversarial import GAIL
from sparring.agents.imitation.demonstrations import Demonstrations
from sparring.agents.imitation.encoding import Rows
from sparring.agents.imitation.expert import CHARTS, Expert
from sparring.agents.imitation.expert import DESCRIPTIONS as EXPERT
from sparring.agents.training.rollout import Rollout
from sparring.config import validation
from sparring.errors import UserError
from sparring.storage.checkpoints import restore_into
from sparring.storage.run_folder import RunFolder
from sparring.training import experiment
from sparring.training.trainer import Evaluation


class LearnedReward:
    """Reward of a finished run, which learns no more; a `RewardSource`.

    Of AIRL it is g alone, without shaping and without log pi (Fu et al. 2018, section 5: with
    `state_only` it is right in environments of other dynamics); of GAIL it is the reward that the
    run's agent had. The dynamics may differ from those of that run, the spaces may not.

    Args:
      run: folder of the run.
      demonstrations: of the expert whose return the agent's is compared with; not learned from.

    Raises:
      UserError: it is no such run, or one of other spaces.
    """

    updates = 0
    charts = CHARTS

    def __init__(
        self,
        agent: Any,
        observation_space: Any,
        action_space: Any,
        seed: int,
        run: str,
        demonstrations: Demonstrations,
    ) -> None:
        del seed
        self.agent = agent
        self.expert = Expert(demonstrations, observation_space, action_space)
        self._run = run
        self._source, self._step = _restored(run, (observation_space, action_space))

    @property
    def descriptions(self) -> dict[str, str]:
        """Tag -> what it measures, of every scalar."""
        return DESCRIPTIONS

    @property
    def reported(self) -> dict[str, str]:
        """Tag -> what it measures, of what an evaluation gains."""
        return {**EXPERT, surface.NAME: surface.DESCRIPTION}

    @property
    def state(self) -> dict[str, Any]:
        """Return nothing: the reward is at rest."""
        return {}

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Run and step whose reward it is."""
        return {"run": self._run, "step": self._step}

    def take_up(self, rollout: Rollout) -> tuple[Rows, tf.Tensor]:
        """Return a rollout's steps as rows [T * B, ...], and their mask [T * B]."""
        return self._source.encoded(rollout)

    def update(self, taken: Any, number: tf.Tensor, progress: tf.Tensor) -> Scalars:
        """Learn nothing."""
        del taken, number, progress
        return {}

    def rewards(
        self, rollout: Rollout, taken: tuple[Rows, tf.Tensor], iteration: tf.Tensor
    ) -> tuple[tf.Tensor, Scalars]:
        """Return the rewards [T, B] of a rollout, 0 in reset steps."""
        del iteration
        rows, mask = taken
        reward = self._source.learned(rows) * mask  # [T * B]
        mean = mean_of_valid(reward, mask)
        squares = mean_of_valid(tf.square(reward - mean), mask)
        return tf.reshape(reward, rollout.reward.shape), {
            "imitation/reward": mean,
            "imitation/reward_std": tf.sqrt(squares),
        }

    def report(self, found: Evaluation, media: bool) -> None:
        """Add the comparison with the expert, and the reward's surface."""
        self.expert.report(found)
        if media:
            surface.add(found, self.agent, self.expert, self._source.encoder, self._source.learned)

    def watch(self, values: Mapping[str, float], step: int) -> None:
        """Find nothing to warn of."""
        del values, step


def _restored(run: str, spaces: tuple[Any, Any]) -> tuple[GAIL, int]:
    """Return the reward source of a run at its latest step, and that step."""
    folder = RunFolder.named_in_config(run, "reward_from")
    cfg = folder.read_config()
    validation.check_composed(cfg)
    # A strategy's scope is a thread's: this is built in none.
    with ThreadPoolExecutor(1) as elsewhere:
        trainer = elsewhere.submit(
            lambda: experiment.build(cfg, tf.distribute.get_strategy())
        ).result()
    trainer.close()
    source = getattr(trainer, "reward_source", None)
    if not isinstance(source, GAIL):
        raise UserError(
            f"reward_from={run}: that run learned no reward: take one of sparring imitation "
            "method=gail or method=airl."
        )
    theirs = (trainer.environment.observation_space, trainer.environment.action_space)
    for name, ours, known in zip(("observation", "action"), spaces, theirs, strict=True):
        if ours != known:
            raise UserError(
                f"reward_from={run}: its {name} space is {known}, and the environment's is {ours}."
            )
    kept = sorted((folder.path / "checkpoints").glob("step_*"))
    if not kept:
        raise UserError(f"reward_from={run}: it holds no checkpoint: let it run to its end.")
    state = tf.train.Checkpoint(reward_source=tf.train.Checkpoint(**source.state))
    return source, restore_into(state, kept[-1])


DESCRIPTIONS = {
    "imitation/reward": "Learned reward of the agent's steps, mean.",
    "imitation/reward_std": "Standard deviation of that reward over a rollout.",
}

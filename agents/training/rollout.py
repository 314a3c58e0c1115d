"""A rollout: T steps of B environments, and what is counted in it."""

import dataclasses
from typing import Any, NamedTuple

import tensorflow as tf

from sparring import nested
from sparring.distribute import replicas, sharding


class Rollout(NamedTuple):
    """T steps of B environments, time-major, in Gymnasium's NEXT_STEP convention.

    observation [T + 1, B, ...] ends with the state reached; the others are [T, B, ...] of the step
    from t to t + 1. `first` is true where that step was a reset: its action was ignored, its reward
    is zero, nothing is learned from it. `extras` holds what the policy said on the way (log
    probabilities, values), each [T, B, ...]. `memory` [2, B, S] is what an agent that remembers
    knew before the first step and after the last (see sparring.agents.networks.recurrent); of
    others it is (). `info` holds what compiled environments measure of the states reached, each
    [T, B].
    """

    observation: Any  # of one part or several, see sparring.nested
    action: tf.Tensor
    reward: tf.Tensor
    terminated: tf.Tensor
    truncated: tf.Tensor
    first: tf.Tensor
    extras: dict[str, tf.Tensor]
    memory: Any = ()
    info: dict[str, tf.Tensor] = {}  # noqa: RUF012 (nothing is ever written to it)

    @property
    def ended(self) -> tf.Tensor:
        """Whether the episode ended with a step, bool [T, B]: terminated, truncated, or broken off
        by a restart.
        """
        reset_next = tf.concat([self.first[1:], tf.zeros_like(self.first[:1])], axis=0)
        return self.terminated | self.truncated | reset_next

    @property
    def reached(self) -> Any:
        """Observations [B, ...] of the states reached."""
        return nested.map_parts(lambda x: x[-1], self.observation)

    @property
    def began_with(self) -> Any:
        """State of the agent before the first step, [B, S]."""
        return tf.nest.map_structure(lambda memory: memory[0], self.memory)

    @property
    def ended_with(self) -> Any:
        """State of the agent after the last step, with which it goes on, [B, S]."""
        return tf.nest.map_structure(lambda memory: memory[1], self.memory)


@dataclasses.dataclass(frozen=True)
class RolloutSpec:
    """Specification of rollouts: `rollout_steps` steps of each of `num_envs` environments.

    Their seeds count from `seed` on. The run takes `vector_steps` steps of them all. Of
    environments on the host, the numbers that `record` names are taken from every step's info.
    """

    environment: Any
    num_envs: int
    rollout_steps: int
    seed: int
    vector_steps: int = 1
    record: tuple[str, ...] = ()

    def share(self, number: int, count: int) -> "RolloutSpec":
        """Return the share of collector `number` of `count` that collect a rollout together."""
        share = self.num_envs // count
        return dataclasses.replace(self, num_envs=share, seed=self.seed + number * share)

    def vector(self) -> Any:
        """Open its environments on the host (see sparring.envs.gymnasium_bridge.vector)."""
        more = {"record": self.record} if self.record else {}
        return self.environment.vector(self.num_envs, self.seed, **more)


class EpisodeStatistics(tf.Module):
    """Return and length of the episodes that finish, carried over from rollout to rollout."""

    def __init__(self, num_envs: int) -> None:
        super().__init__(name="episodes")
        self.shard = sharding.Sharded(tf.zeros([2, num_envs]), axis=1)
        self.running = self.shard.whole  # return and length so far

    def update(self, rollout: Rollout) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        """Sums and counts of `rollout/episode_return`, `rollout/episode_length` and of what was
        measured of last states, over the episodes that ended.
        """
        steps = rollout.reward.shape[0]
        # [T, B]; zero also where an episode was broken off
        goes_on = tf.cast(~rollout.first, tf.float32)
        gained = tf.stack([rollout.reward, goes_on], axis=1)  # [T, 2, B]
        ended = tf.cast(rollout.terminated | rollout.truncated, tf.float32)  # [T, B]

        def body(
            t: tf.Tensor, running: tf.Tensor, sums: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            running = running * goes_on[t] + gained[t]
            return t + 1, running, sums + running * ended[t]

        mine = self.shard.part
        start = (0, tf.convert_to_tensor(mine), tf.zeros_like(mine))
        _, running, sums = tf.while_loop(
            lambda t, *_: t < steps, body, start, maximum_iterations=steps
        )
        mine.assign(running)
        measured = {name: tf.reduce_sum(x * ended) for name, x in rollout.info.items()}
        count, gained, measured = replicas.all_reduce_sum(
            [tf.reduce_sum(ended), tf.reduce_sum(sums, axis=1), measured]
        )
        total_return, total_length = tf.unstack(gained)
        return {
            "rollout/episode_return": (total_return, count),
            "rollout/episode_length": (total_length, count),
            **{f"rollout/{name}": (total, count) for name, total in measured.items()},
        }

    descriptions = {  # noqa: RUF012
        "rollout/episode_return": "Undiscounted return of the episodes that finished while "
        "training, mean.",
        "rollout/episode_length": "Length in steps of the episodes that finished while training, "
        "mean.",
    }

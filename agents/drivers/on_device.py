"""Driver of compiled environments: environment and policy inside the trainer's program."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from sparring import nested
from sparring.agents.networks import recurrent
from sparring.agents.training.rollout import Rollout, RolloutSpec
from sparring.distribute import replicas, sharding

# int32 variables live in the host's memory, out of reach of a GPU's XLA program.
_WIDER = {tf.int32: tf.int64}


class DeviceState(tf.Module):
    """A nest of tensors [B, ...] kept in variables between two calls of a program; each replica
    reads its share.
    """

    def __init__(self, specs: Any) -> None:
        super().__init__(name="carry")
        self._specs = specs
        self.shards = tuple(
            sharding.Sharded(tf.zeros(s.shape, _WIDER.get(s.dtype, s.dtype)))
            for s in tf.nest.flatten(specs)
        )
        self.parts = [shard.whole for shard in self.shards]

    def read(self) -> Any:
        """The nest."""
        flat = [
            tf.cast(v.part, s.dtype)
            for v, s in zip(self.shards, tf.nest.flatten(self._specs), strict=True)
        ]
        return tf.nest.pack_sequence_as(self._specs, flat)

    def assign(self, values: Any) -> None:
        """Replace the nest."""
        for shard, value in zip(self.shards, tf.nest.flatten(values), strict=True):
            shard.part.assign(tf.cast(value, shard.part.dtype))

    def open(self, values: Any) -> None:
        """Set the nest of all replicas, outside of a program."""
        for variable, value in zip(self.parts, tf.nest.flatten(values), strict=True):
            variable.assign(tf.cast(value, variable.dtype))


class CompiledDriver:
    """Steps compiled environments inside the trainer's program.

    Args:
      source: the environments, their number and the steps of a rollout.
      act: `act(observation, known, vector_step) -> (action, extras, known)`, traced into the
        program.
      known: the agent's state at the start (see sparring.agents.networks.recurrent), from then on
        carried along with the environments' state.

    Attributes:
      carry: the state of environments and agent, and the observations, between two calls. Each
        replica has its share of them.
    """

    def __init__(
        self, source: RolloutSpec, act: Callable[..., Any], known: recurrent.State = ()
    ) -> None:
        self.source = source
        self.environment = source.environment
        self.act = act
        self._known = known
        of_agent = tf.nest.map_structure(lambda k: tf.TensorSpec(k.shape, k.dtype), known)
        specs = self.environment.specs(source.num_envs), of_agent
        observation = nested.map_parts(
            lambda box: tf.TensorSpec([source.num_envs, *box.shape], tf.as_dtype(box.dtype)),
            self.environment.observation_space,
        )
        self.carry = DeviceState((specs, observation))
        self._stream = self.environment.stream(source.seed)
        self._opened = False

    def open(self, done: int) -> None:
        """Open the first episodes, before iteration `done`, if that is the run's first."""
        if not self._opened and done == 0:
            environment = self.environment.at(0.0)
            state = environment.open(self.source.seed, self.source.num_envs)
            self.carry.open(((state, self._known), environment.observe(state.state)))
        self._opened = True

    def advance(self, carry: Any, iteration: tf.Tensor) -> tuple[Rollout, Any]:
        """Collect the rollout of a replica's environments in an iteration; the state after it."""
        state, observation = carry
        vector_step = iteration * self.source.rollout_steps
        collect = replicas.compile_in_replica(self.collect)
        rollout, state = collect(state, observation, vector_step)
        return rollout, (state, rollout.reached)

    def collect(
        self, state: Any, observation: tf.Tensor, vector_step: tf.Tensor
    ) -> tuple[Rollout, Any]:
        """T vector steps, from number `vector_step` of the run on; `state` is that of environments
        and agent.
        """
        collect = self._collect_one if self.source.rollout_steps == 1 else self._collect_many
        rollout, after = collect(state, observation, vector_step)
        # [2, B, S]
        both = tf.nest.map_structure(lambda *known: tf.stack(known), state[1], after[1])
        return rollout._replace(memory=both), after

    def _collect_one(
        self, state: Any, observation: tf.Tensor, vector_step: tf.Tensor
    ) -> tuple[Rollout, Any]:
        state, _, row = self._step(state, observation, vector_step)
        first, *others, info = tf.nest.map_structure(lambda x: x[tf.newaxis], row)
        seen = nested.map_parts(lambda x, y: tf.stack([x, y[0]]), observation, first)
        return Rollout(seen, *others)._replace(info=info), state

    def _step(
        self, state: Any, observation: tf.Tensor, vector_step: tf.Tensor
    ) -> tuple[Any, tf.Tensor, Any]:
        environments, known = state
        action, extras, known = self.act(observation, known, vector_step)
        first = replicas.replica_index() * nested.batch_size(observation)
        share = tf.cast(vector_step, tf.float32) / float(self.source.vector_steps)
        environment = self.environment.at(tf.minimum(share, 1.0))
        environments, step = environment.step_at(
            environments, action, self._stream, vector_step, first
        )
        row = (
            step.observation,
            action,
            step.reward,
            step.terminated,
            step.truncated,
            step.first,
            extras,
            self.environment.measure(environments.state),
        )
        return (environments, recurrent.restarted(known, step.first)), step.observation, row

    def _collect_many(
        self, state: Any, observation: tf.Tensor, vector_step: tf.Tensor
    ) -> tuple[Rollout, Any]:
        shapes = self._row_specs(state, observation, vector_step)
        steps = self.source.rollout_steps
        arrays = [
            tf.TensorArray(s.dtype, steps, element_shape=s.shape) for s in tf.nest.flatten(shapes)
        ]

        def body(
            t: tf.Tensor, state: Any, observation: tf.Tensor, arrays: list[Any]
        ) -> tuple[Any, ...]:
            state, observation, row = self._step(
                state, observation, vector_step + tf.cast(t, tf.int64)
            )
            written = [a.write(t, x) for a, x in zip(arrays, tf.nest.flatten(row), strict=True)]
            return t + 1, state, observation, written

        _, state, _, arrays = tf.while_loop(
            lambda t, *_: t < steps, body, (0, state, observation, arrays), maximum_iterations=steps
        )
        observations, *others, info = tf.nest.pack_sequence_as(shapes, [a.stack() for a in arrays])
        seen = nested.map_parts(
            lambda x, y: tf.concat([x[tf.newaxis], y], axis=0), observation, observations
        )
        return Rollout(seen, *others)._replace(info=info), state

    def _row_specs(self, *arguments: Any) -> Any:
        """Shapes and dtypes of what one step leaves, by tracing it aside."""
        specs = tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), arguments)
        traced = tf.function(lambda *a: self._step(*a)[2], autograph=False).get_concrete_function(
            *specs
        )
        return tf.nest.map_structure(
            lambda x: tf.TensorSpec(x.shape, x.dtype), traced.structured_outputs
        )

    def snapshot(self) -> Any:
        """Return nothing: the environments' state is in `carry`, among the variables."""
        return {}

    def restore(self, snapshot: Mapping[str, Any]) -> list[str]:
        """The variables have it already."""
        del snapshot
        self._opened = True
        return []

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

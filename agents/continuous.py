"""Base of SAC and TD3: a policy and several critics, learned from transitions with Box actions.

Networks see actions scaled to -1 and 1, whatever the bounds are, and entropy and noise are of
scaled actions too. An update is a step of the critics and, when it is due, one of the policy. A
subclass says which actions the next states are valued by, and how the policy learns.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import tensorflow as tf

from sparring import nested
from sparring.agents.agent import Estimate, Memoryless, Scalars
from sparring.agents.networks import headed, specs
from sparring.agents.networks.critics import CriticEnsemble, Policy
from sparring.agents.networks.headed import Torso
from sparring.agents.networks.normalizers import observation_normalizer
from sparring.agents.networks.regularized import Learning, RegularizedMLP
from sparring.agents.replay import Transitions
from sparring.distribute import replicas
from sparring.errors import UserError
from sparring.networks.mlp import MLP
from sparring.optim import optimizer as optim_optimizer
from sparring.optim.optimizer import Scheduled
from sparring.xla import random


class Batch(NamedTuple):
    """Transitions [M] as networks see them, observations prepared and actions scaled.

    `counts` [M] is one where there is a transition, else zero; `share` [M] is a row's weight over
    the number that count on all replicas, so that a sum over rows and replicas is a mean. `keys`
    [M, 2] are the rows' own.
    """

    observation: Any
    action: tf.Tensor
    reward: tf.Tensor
    discount: tf.Tensor
    next_observation: Any
    counts: tf.Tensor
    share: tf.Tensor
    keys: tf.Tensor


class PolicyStep(NamedTuple):
    """Gradients by the name of their optimizer, and scalars that replicas add."""

    gradients: dict[str, list[tf.Tensor]]
    sums: Scalars


class ContinuousAgent(Memoryless, tf.Module):
    """Base of agents with a policy and critics for Box actions.

    Args:
      network: factory of the policy's torso, and of the critics' if these have no other; None: two
        layers of 256 rectified units.
      head: factory of the policy's last layer.
      optimizer: that of the policy; the critics have one of the same settings. None: Adam at 3e-4.
      critics: factory of a `CriticEnsemble`.
      target_tau: share by which target networks move at every update; None: there are none, and
        the critics themselves value the next states, in one batch with the present ones (CrossQ).
      policy_period: updates for each of the policy's.
      normalize_observations: by the running statistics of the replayed ones, which each batch first
        adds to.
      first_actions: "uniform" between the bounds, or "bounds": each number at one of them, which
        drives further what adds actions up, such as a car in a valley.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        network: Torso | None,
        head: Callable[[], tf.keras.layers.Layer],
        optimizer: Scheduled | None,
        discount: float,
        critics: Callable[..., CriticEnsemble] | None,
        target_tau: float | None,
        policy_period: int,
        normalize_observations: bool,
        first_actions: str,
    ) -> None:
        super().__init__(name=type(self).__name__.lower())
        if first_actions not in ("uniform", "bounds"):
            raise UserError(f"agent.first_actions={first_actions}: choose uniform or bounds.")
        self.first_actions = first_actions
        self.discount = discount
        self.target_tau = target_tau
        self.policy_period = policy_period
        assert isinstance(action_space, gymnasium.spaces.Box)
        self.low = action_space.low
        self.span = action_space.high - action_space.low
        spec = specs.time_step_spec(observation_space).observation
        self._highest = headed.highest_bytes(spec)
        # An observation [1, ...], to build networks by
        self.example = nested.map_parts(lambda s: tf.zeros([1, *s.shape], s.dtype), spec)
        self.normalizer = (
            observation_normalizer(nested.without_mask(observation_space))
            if normalize_observations
            else None
        )
        if network is None:
            network = functools.partial(MLP, (256, 256), "relu")
        ensemble: Any = CriticEnsemble if critics is None else critics
        make_critics = functools.partial(ensemble, spec, len(self.low), network)
        self.make_policy = functools.partial(Policy, spec, network, head)
        self.policy = self.make_policy()
        self.critics = make_critics()
        self.target_critics = None if target_tau is None else make_critics()
        self._build()
        headed.check_layers([self.policy, *self.critics.critics])
        self.optimizers: dict[str, Scheduled] = {}
        self.trainable: list[tf.Variable] = []
        self.learn_by("policy", optimizer or optim_optimizer.adam(3e-4), self.policy)
        self.learn_by("critics", self.optimizers["policy"].another(), self.critics)
        self.updates = replicas.counter()

    def _build(self) -> None:
        """Make the networks' variables, and the target critics equal to the critics."""
        seen = self.prepared(self.example)
        action = tf.zeros([1, len(self.low)])
        self.policy(seen)
        self.critics((seen, action))
        if self.target_critics is not None:
            self.target_critics((seen, action))
            copy_weights(self.critics, self.target_critics)
        self._reduces = any(
            isinstance(module, RegularizedMLP) and module.reduces for module in self.submodules
        )

    def learn_by(self, name: str, optimizer: Scheduled, module: tf.Module) -> None:
        """Have the optimizer called `name` learn the weights of `module`."""
        weights = headed.unique(module.trainable_variables)
        optimizer.build(weights)
        self.optimizers[name] = optimizer
        self.trainable.extend(weights)

    def parts(self) -> dict[str, tf.Module]:
        """Return the modules that were learned: enough to act and to bootstrap."""
        found = {
            "policy": self.policy,
            "critics": self.critics,
            "target_critics": self.target_critics,
            "normalizer": self.normalizer,
        }
        return {name: module for name, module in found.items() if module is not None}

    # ---- acting ----------------------------------------------------------------------------------

    def prepared(self, observation: Any) -> Any:
        """Return observations [B, ...] as networks are given them."""
        return headed.prepare(observation, self.normalizer, self._highest)

    def scaled(self, action: tf.Tensor) -> tf.Tensor:
        """Return actions [B, D] of the environment within -1 and 1."""
        return 2.0 * (action - self.low) / self.span - 1.0

    def unscaled(self, action: tf.Tensor) -> tf.Tensor:
        """Return actions [B, D] within -1 and 1 as the environment takes them, inside its bounds.

        They are clipped, since rounding may bring one a little outside.
        """
        stretched = self.low + self.span * 0.5 * (action + 1.0)
        return tf.clip_by_value(stretched, self.low, self.low + self.span)

    def act_random(self, seen: Any, keys: tf.Tensor) -> tf.Tensor:
        """Random actions [B, D] of the first steps; `keys` [B, 2]."""
        del seen
        action = 2.0 * random.uniform(keys, len(self.low)) - 1.0
        return self.unscaled(action if self.first_actions == "uniform" else tf.sign(action + 1e-9))

    def act_greedy(self, seen: Any) -> tf.Tensor:
        """The policy's actions [B, D] without noise."""
        return self.unscaled(self.greedy(self.prepared(seen)))

    def greedy(self, observation: Any) -> tf.Tensor:
        """Return the policy's actions [B, D], scaled, at prepared observations."""
        raise NotImplementedError

    def value(self, seen: Any) -> dict[str, tf.Tensor]:
        """Return the least value that a critic gives to the greedy action, [B]."""
        observation = self.prepared(seen)
        values = self.critics((observation, self.greedy(observation)))
        return {"value": tf.reduce_min(values, axis=0)}

    def estimates(self) -> dict[str, Estimate]:
        """Return the value of the greedy action, for export."""
        about = "The greedy action, and the least value that a critic gives it."
        return {"value": Estimate(self.value, about, with_action=True)}

    # ---- learning --------------------------------------------------------------------------------

    def next_actions(
        self, observation: Any, keys: tf.Tensor, progress: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the actions [M, D], scaled, that the next states are valued by, and what is added
        to their values [M].
        """
        raise NotImplementedError

    def policy_step(self, batch: Batch, progress: tf.Tensor, learning: Learning) -> PolicyStep:
        """Return the gradients of the policy's loss, of a replica's share of the batch."""
        raise NotImplementedError

    def update(
        self, batch: Transitions, key: tf.Tensor, progress: tf.Tensor
    ) -> tuple[Scalars, tf.Tensor]:
        """Take a step of the critics on transitions [M], and of the policy when it is due.

        Returns scalars, and the absolute temporal-difference errors [M], the mean of all critics.
        Scalars of the policy weigh nothing where it was not due.
        """
        if self.normalizer is not None:
            self.normalizer.update(batch.observation, tf.sign(batch.mask))
        rows = self._rows(batch, key)
        self.updates.assign_add(1)
        due = self.updates % self.policy_period == 0
        gradients, sums, errors = self._compiled(self._critic_gradients)(rows, progress)
        norms = self.optimizers["critics"].step(gradients, progress, "critics")
        step = self._policy_step_if(due, rows, progress)
        of_policy: Scalars = {}
        for name, each in step.gradients.items():
            of_policy |= self.optimizers[name].step(each, progress, name, due)
        self.move_targets(due)
        scalars = replicas.all_reduce_sum(sums | step.sums)
        of_policy |= {tag: scalars.pop(tag) for tag in step.sums}
        weight = tf.cast(due, tf.float32)
        weighted = {tag: (weight * value, weight) for tag, value in of_policy.items()}
        return scalars | norms | weighted, errors

    def _rows(self, batch: Transitions, key: tf.Tensor) -> Batch:
        counts = tf.sign(batch.mask)
        count = replicas.all_reduce_sum(tf.reduce_sum(counts))
        return Batch(
            self.prepared(batch.observation),
            self.scaled(batch.action),
            batch.reward,
            batch.discount,
            self.prepared(batch.next_observation),
            counts,
            batch.mask / tf.maximum(count, 1.0),
            self.row_keys(key, batch.mask.shape[0]),
        )

    def row_keys(self, key: tf.Tensor, count: int) -> tf.Tensor:
        """Return a key for each row of a batch, [count, 2]."""
        return random.members(key, count)

    def _critic_gradients(
        self, batch: Batch, progress: tf.Tensor
    ) -> tuple[list[tf.Tensor], Scalars, tf.Tensor]:
        """Gradients, scalars to be added, and the errors [M]: a replica's share of each."""
        next_keys = random.fold(batch.keys, 0)
        action, bonus = self.next_actions(batch.next_observation, next_keys, progress)
        weights = self.optimizers["critics"].variables
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            now, after = self._values(batch, action)  # [N, M] each
            wanted = tf.reduce_min(after, axis=0) + bonus
            target = batch.reward + self.discount * batch.discount * wanted  # [M]
            error = now - tf.stop_gradient(target)
            loss = 0.5 * tf.reduce_sum(batch.share * tf.square(error)) + penalty(self.critics)
        missed = tf.reduce_mean(tf.abs(error), axis=0)
        sums = {
            "loss/critic": loss,
            "q/mean": tf.reduce_sum(batch.share * tf.reduce_mean(now, axis=0)),
            "q/td_error": tf.reduce_sum(batch.share * missed),
        }
        return tape.gradient(loss, weights), sums, missed * batch.counts

    def _values(self, batch: Batch, action: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return what the critics say of the transitions, and of the next states, each [N, M]."""
        now_keys = random.fold(batch.keys, 1)
        after_keys = random.fold(batch.keys, 2)
        if self.target_critics is not None:
            learning = Learning(now_keys, batch.counts)
            now = self.critics((batch.observation, batch.action), learning)
            after = self.target_critics((batch.next_observation, action), Learning(after_keys))
            return now, after
        observation = nested.map_parts(_joined, batch.observation, batch.next_observation)
        learning = Learning(_joined(now_keys, after_keys), _joined(batch.counts, batch.counts))
        values = self.critics((observation, _joined(batch.action, action)), learning)
        now, after = tf.split(values, 2, axis=1)
        return now, after

    def _policy_step_if(self, due: tf.Tensor, batch: Batch, progress: tf.Tensor) -> PolicyStep:
        """The policy's step, zero if it is not due.

        Of several replicas it is taken at every update, since replicas cannot meet in a branch;
        what is not due is not applied.
        """
        compiled = self._compiled(self.policy_step)
        if self.policy_period == 1 or replicas.num_replicas() > 1:
            learning = Learning(batch.keys, batch.counts, tf.cast(due, tf.float32))
            return compiled(batch, progress, learning)
        return tf.cond(
            due,
            lambda: self.policy_step(batch, progress, Learning(batch.keys, batch.counts)),
            self._no_step,
        )

    def _no_step(self) -> PolicyStep:
        gradients = {
            name: [tf.zeros_like(v) for v in each.variables]
            for name, each in self.optimizers.items()
            if name != "critics"
        }
        return PolicyStep(gradients, dict.fromkeys(self.policy_tags, tf.constant(0.0)))

    def _compiled(self, part: Callable[..., Any]) -> Callable[..., Any]:
        """Return what XLA may compile of a replica's part: nothing in which replicas meet."""
        return part if self._reduces else replicas.compile_in_replica(part)

    def climbed(self, observation: Any, action: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        """Return the value [M] that the policy climbs."""
        return self.critics.climbed(self.critics((observation, action), Learning(keys)))

    def move_targets(self, due: tf.Tensor) -> None:
        """Move the target networks; `due` tells whether the policy learned."""
        del due
        if self.target_critics is not None:
            follow(self.critics, self.target_critics, self.target_tau)

    policy_tags: tuple[str, ...] = ("loss/policy",)  # of the scalars that `policy_step` returns
    descriptions = optim_optimizer.descriptions(["policy", "critics"]) | {
        "loss/critic": "Half the squared temporal-difference error, summed over the critics, mean "
        "over updates.",
        "loss/policy": "Loss of the policy, mean over its updates.",
        "q/mean": "Value of the replayed actions, mean over critics and the transitions of a "
        "batch.",
        "q/td_error": "Absolute temporal-difference error, mean over critics and the transitions "
        "of a batch.",
    }


def penalty(network: tf.keras.layers.Layer) -> tf.Tensor:
    """Return what layers add to the loss, such as kernel regularizers: a replica's share of it."""
    return tf.add_n([tf.constant(0.0), *network.losses]) / replicas.num_replicas()


def copy_weights(network: tf.Module, target: tf.Module) -> None:
    """Make the variables of `target` equal to those of `network`, which is built alike.

    Raises:
      UserError: they share a variable.
    """
    for variable, other in zip(network.variables, target.variables, strict=True):
        if variable is other:
            raise UserError(
                "network: it gives the same layers at every call, so that the target network would "
                "be the online one: give a class, or a function that makes layers anew."
            )
        other.assign(variable)


def follow(network: tf.Module, target: tf.Module, tau: float | tf.Tensor | None) -> None:
    """Move the variables of `target` by the share `tau` towards those of `network`."""
    for variable, slow in zip(network.variables, target.variables, strict=True):
        replicas.assign(slow, slow + tau * (variable - slow))


def _joined(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    return tf.concat([first, second], axis=0)

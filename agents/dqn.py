"""DQN (Mnih et al. 2015), double (van Hasselt et al. 2015) or not: TF-Agents' agent, mended.

What is mended, each with a test in tests/agents/test_dqn.py or tests/agents/test_replay.py:
1. n-step sums stop where an episode ends, by termination or truncation (tensorflow/agents#939); 2.
gradients are clipped by their global norm, in the optimizer, not each variable by its own; 3.
exploration draws from keys: under XLA TF-Agents' own policies explore alike whatever the seed; 4.
the defaults are the paper's: discount 0.99 and a target network that lags (TF-Agents: 1.0, copied
every step).

To change the algorithm, subclass `DQN` and override `_loss`, `_td_loss` or
`_compute_next_q_values`, as sparring.agents.c51, qr_dqn and iqn do.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gymnasium
import tensorflow as tf
from tf_agents.agents.dqn import dqn_agent
from tf_agents.agents.tf_agent import LossInfo
from tf_agents.trajectories import policy_step, trajectory
from tf_agents.utils import common

from sparring import nested
from sparring.agents import requirements
from sparring.agents.agent import OneOptimizer, Scalars
from sparring.agents.epsilon_greedy import EpsilonGreedy
from sparring.agents.munchausen import Munchausen
from sparring.agents.networks import headed, masks, noisy, specs
from sparring.agents.networks.headed import HeadedNetwork, Torso
from sparring.agents.networks.normalizers import observation_normalizer
from sparring.agents.networks.q_heads import QHead
from sparring.agents.networks.recurrent import Memory, State
from sparring.agents.q_memories import QMemories
from sparring.agents.replay import Sequences, Transitions
from sparring.distribute import replicas
from sparring.errors import UserError
from sparring.networks.mlp import MLP
from sparring.optim import optimizer as optim_optimizer
from sparring.optim.schedules import Schedule, as_schedule
from sparring.xla import random

LOSSES = {"huber": common.element_wise_huber_loss, "squared": common.element_wise_squared_loss}


class DQN(EpsilonGreedy, OneOptimizer, dqn_agent.DqnAgent):
    """Deep Q-learning for one Discrete action.

    Without a `network` it is two layers of 64 rectified units; without an `optimizer`, Adam at 5e-4
    with gradients clipped to a norm of 10.
    `epsilon` is a number or a schedule of the run's progress. The target network moves towards the
    online one by the share `target_tau` every `target_period` updates (tau 1: a copy). `loss` is
    "huber" or "squared". `head` makes the network's last layer from the number of actions (see
    sparring.agents.networks.q_heads; None: a dense one). With `normalize_observations` they are
    normalised by the running statistics of the replayed ones, which each batch first adds to.

    With `double` the online network chooses the next action, and the target network values it
    (van Hasselt et al. 2015). With `munchausen` the next value is soft, and rewards have the log
    policy added (see sparring.agents.munchausen). With a `boltzmann` temperature, a number or a
    schedule, actions that epsilon does not choose are drawn from softmax(Q / temperature).
    Noisy layers (see sparring.agents.networks.noisy) draw for each action, and for each network of
    each update.

    With a `memory`, online and target network each have one in front of them (see
    sparring.agents.networks.recurrent), and learn from sequences (Kapturowski et al. 2019): of
    `burn_in` steps that bring the stored state up to date, and `unroll` transitions. A sequence's
    error is `sparring.agents.dqn.PEAK` of its largest and the rest of its mean.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        network: Torso | None = None,
        optimizer: optim_optimizer.Scheduled | None = None,
        discount: float = 0.99,
        epsilon: Schedule | float = 0.1,
        target_period: int = 500,
        target_tau: float = 1.0,
        loss: str = "huber",
        head: Callable[[int], tf.keras.layers.Layer] | None = None,
        normalize_observations: bool = False,
        memory: Callable[[], Memory] | None = None,
        burn_in: int = 8,
        unroll: int = 16,
        double: bool = False,
        boltzmann: Schedule | float | None = None,
        munchausen: Munchausen | None = None,
    ) -> None:
        requirements.refuse_double_munchausen(double, munchausen)
        self.num_actions = requirements.require_discrete(action_space)
        if loss not in LOSSES:
            raise UserError(f"agent.loss={loss}: choose one of {', '.join(LOSSES)}.")
        if network is None:
            network = functools.partial(MLP, activation="relu")
        if optimizer is None:
            optimizer = optim_optimizer.adam(5e-4, epsilon=1e-5, global_clipnorm=10.0)
        self.scheduled = optimizer
        self.discount = discount
        self.epsilon = as_schedule(epsilon)
        self.double = double
        self.boltzmann = None if boltzmann is None else as_schedule(boltzmann)
        self.munchausen = munchausen
        masks.require(observation_space, action_space)
        seen_space = nested.without_mask(observation_space)
        self.observation_normalizer = (
            observation_normalizer(seen_space) if normalize_observations else None
        )
        self.burn_in = int(burn_in)
        self.unroll = int(unroll)
        time_step_spec = specs.time_step_spec(self._remembered(observation_space, memory))
        make = functools.partial(
            self._network,
            nested.without_mask(time_step_spec.observation),
            network,
            functools.partial(self._make_head, head or QHead),
        )
        has_mask = nested.mask_of(observation_space) is not None
        with _told_if_shared():
            super().__init__(
                time_step_spec,
                specs.action_spec(action_space),
                q_network=make(0),
                target_q_network=None if memory is None else make(1),
                optimizer=optimizer.keras,
                observation_and_action_constraint_splitter=_split if has_mask else None,
                epsilon_greedy=None,
                target_update_tau=target_tau,
                target_update_period=target_period,
                td_errors_loss_fn=LOSSES[loss],
                gamma=discount,
                train_step_counter=replicas.counter(),
            )
        self._replayed: tf.Tensor | None = None
        self._measured: Scalars = {}  # of the batch, each [M], while an update is traced
        self.describe_exploration()
        self._begin_to_learn()

    def _remembered(
        self, observation_space: gymnasium.Space, memory: Callable[[], Memory] | None
    ) -> Any:
        """Make the memories, if there are any, and return the space of what networks are given."""
        self.memories: QMemories | None = None
        if memory is None:
            return observation_space
        spec = specs.time_step_spec(nested.without_mask(observation_space)).observation
        self.memories = QMemories(memory, spec, self.observation_normalizer)
        return masks.beside(self.memories.space, observation_space)

    def _begin_to_learn(self) -> None:
        """Collect what is learned, create the optimizer's slots, and copy it to the target."""
        remembering = [] if self.memories is None else self.memories.online
        self.trainable = headed.unique([*remembering, *self._q_network.trainable_weights])
        ours = {weight.ref() for weight in self.trainable}
        if any(weight.ref() in ours for weight in self._target_q_network.trainable_weights):
            raise _shared()
        headed.check_layers([self._q_network])
        self.scheduled.build(self.trainable)
        self.initialize()

    def _make_head(self, head: Callable[..., tf.keras.layers.Layer]) -> tf.keras.layers.Layer:
        """The network's last layers, of a factory of heads."""
        return head(self.num_actions)

    def _network(self, spec: Any, torso: Torso, head: Torso, number: int) -> HeadedNetwork:
        """The online network, number 0, or the target network, 1."""
        if self.memories is None:
            return HeadedNetwork(spec, torso, head, self.observation_normalizer, "q_network")
        return HeadedNetwork(spec, self.memories.torso(torso, number), head, name="q_network")

    def parts(self) -> dict[str, tf.Module]:
        """Return the modules that were learned: enough to act and to bootstrap."""
        networks = {"q_network": self._q_network, "target_q_network": self._target_q_network}
        more = {"normalizer": self.observation_normalizer, "memories": self.memories}
        return networks | {k: v for k, v in more.items() if v is not None}

    def _initialize(self) -> None:
        """Have the target network, and its memory, begin as the online one."""
        common.soft_variables_update(*self._pairs(), tau=1.0)

    def _get_target_updater(self, tau: float = 1.0, period: int = 1) -> Any:
        """Return the updater of the target network, and of its memory, for when it is due."""

        def update() -> Any:
            return common.soft_variables_update(*self._pairs(), tau, tau_non_trainable=1.0)

        return common.Periodically(update, period, "periodic_update_targets")

    def _pairs(self) -> tuple[list[tf.Variable], list[tf.Variable]]:
        """The variables of the online network and memory, and of the target's."""
        online = list(self._q_network.variables)
        target = list(self._target_q_network.variables)
        if self.memories is None:
            return online, target
        return [*self.memories.online, *online], [*self.memories.target, *target]

    # ---- remembering -----------------------------------------------------------------------------

    @property
    def sequence(self) -> int:
        """The steps of a sequence that is learned from; 0 of single transitions."""
        return 0 if self.memories is None else self.burn_in + self.unroll

    @property
    def extra(self) -> dict[str, gymnasium.spaces.Box]:
        """Spaces of what is kept of each step: the memory's state before it."""
        return {} if self.memories is None else {"state": self.memories.state_space}

    def start(self, batch: int) -> State:
        """Return the state before the first step of `batch` episodes."""
        return () if self.memories is None else self.memories.start(batch)

    def see(self, observation: Any, state: State) -> tuple[Any, State]:
        """Return the input of all methods below for observations, and the state after a step."""
        return (observation, ()) if self.memories is None else self.memories.see(observation, state)

    def keep(self, seen: Any, action: tf.Tensor, progress: tf.Tensor) -> Scalars:
        """Return what is kept of a step."""
        del action, progress
        return {} if self.memories is None else {"state": self.memories.state(seen)}

    # ---- learning --------------------------------------------------------------------------------

    def _compute_q_values(
        self, time_steps: Any, actions: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        # [M], for the metrics
        self._replayed = super()._compute_q_values(time_steps, actions, training)
        return self._replayed

    def _compute_next_q_values(self, next_time_steps: Any, info: Any) -> tf.Tensor:
        """Values [M] of the next states, by the target network."""
        del info
        values = self.target_q_values(next_time_steps.observation)
        return self._of_next(next_time_steps.observation, values, values)

    def target_q_values(self, observation: Any) -> tf.Tensor:
        """Q(s, .) [M, A] of observations [M, ...], by the target network."""
        return self._target_q_network(nested.without_mask(observation))[0]

    def _of_next(self, observation: Any, outputs: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """Return the part of `outputs` [M, A, ...] of next states to bootstrap from: [M, ...].

        `values` [M, A] are the target network's. It is that of the allowed action of highest value,
        with `double` by the online network's; of Munchausen's policy it is the mean.
        """
        mask = nested.mask_of(observation)
        if self.munchausen is not None:
            return self.munchausen.mean(outputs, values, mask)
        chooses = self.q_values(observation) if self.double else values
        return tf.gather(outputs, masks.best(chooses, mask), batch_dims=1)

    def update(
        self, batch: Transitions | Sequences, key: tf.Tensor, progress: tf.Tensor
    ) -> tuple[Scalars, tf.Tensor]:
        """Take a gradient step on M transitions, or sequences; update the target network when due.

        Only noisy layers draw from `key` [2]. Returns scalars, and errors [M]: see `_errors`.
        """
        if self.observation_normalizer is not None:
            self.observation_normalizer.update(*_observed(batch))
        compute = replicas.compile_in_replica(self._gradients)
        gradients, highest, sums, errors = compute(batch, key)
        norms = self.scheduled.step(gradients, progress)
        self.train_step_counter.assign_add(1)
        self._update_target()
        sums = replicas.all_reduce_sum(sums)
        count = tf.maximum(sums.pop("count"), 1.0)
        values = {tag: value if tag == "loss/td" else value / count for tag, value in sums.items()}
        values |= {t: replicas.all_reduce_max(v) for t, v in highest.items()}
        return values | norms | self.exploration(progress), errors

    def _gradients(
        self, batch: Transitions | Sequences, key: tf.Tensor
    ) -> tuple[list[tf.Tensor], Scalars, Scalars, tf.Tensor]:
        """Gradients, scalars to take the largest of, scalars to be added, and the errors [M]: a
        replica's share of each.
        """
        with self._drawing(key), tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.trainable)
            steps = self._transitions(batch)
            info = self._loss(
                _as_transition(steps),
                self._td_errors_loss_fn,
                self._gamma,
                weights=steps.mask,
                training=True,
            )
        counts = valid(steps)
        sums = {"loss/td": info.loss, "count": tf.reduce_sum(counts)}
        sums["q/td_error"] = tf.reduce_sum(tf.abs(info.extra.td_error) * counts)
        sums |= {tag: tf.reduce_sum(value * counts) for tag, value in self._measured.items()}
        highest = {}
        if self._replayed is not None:
            sums["q/mean"] = tf.reduce_sum(self._replayed * counts)
            replayed = tf.where(counts > 0.0, self._replayed, tf.reduce_min(self._replayed))
            highest["q/max"] = tf.reduce_max(replayed)
        gradients = tape.gradient(info.loss, self.trainable)
        errors = self._errors(info) * counts
        return gradients, highest, sums, _of_sequences(errors, batch)

    @contextlib.contextmanager
    def _drawing(self, key: tf.Tensor) -> Iterator[None]:
        """Context of an update in which each network has a noise of its own, drawn from `key`."""
        with (
            noisy.noise(self._q_network, random.fold(key, 0)[tf.newaxis]),
            noisy.noise(self._target_q_network, random.fold(key, 1)[tf.newaxis]),
        ):
            yield

    def _transitions(self, batch: Transitions | Sequences) -> Transitions:
        """The transitions that are learned from, as the networks see them."""
        if isinstance(batch, Sequences):
            assert self.memories is not None
            batch = self.memories.transitions(batch, self.burn_in)
        if self.munchausen is None:
            return batch
        values = self.target_q_values(batch.observation)
        added = self.munchausen.reward(values, nested.mask_of(batch.observation), batch.action)
        return batch._replace(reward=batch.reward + tf.stop_gradient(added))

    def _errors(self, info: LossInfo) -> tf.Tensor:
        """Return the error [M] of each transition for replay: the absolute temporal difference."""
        return tf.abs(info.extra.td_error)

    descriptions: Mapping[str, str] = optim_optimizer.DESCRIPTIONS | {
        "loss/td": "Huber or squared temporal-difference loss, mean over updates.",
        "q/mean": "Value of the replayed actions, mean over the transitions of a batch.",
        "q/max": "Largest value of a replayed action in the batch, mean over updates.",
        "q/td_error": "Absolute temporal-difference error, mean over the transitions of a batch.",
        "schedule/epsilon": "Share of random actions, mean over updates.",
    }


PEAK = 0.9  # of the largest error of a sequence in its own (Kapturowski et al. 2019, section 2.3)


def _of_sequences(errors: tf.Tensor, batch: Transitions | Sequences) -> tf.Tensor:
    """Errors of transitions, or [T * M] of sequences' transitions, as errors [M] of the batch."""
    if isinstance(batch, Transitions):
        return errors
    each = tf.reshape(errors, [-1, batch.last.shape[1]])  # [T, M]
    return PEAK * tf.reduce_max(each, axis=0) + (1.0 - PEAK) * tf.reduce_mean(each, axis=0)


def _observed(batch: Transitions | Sequences) -> tuple[Any, tf.Tensor]:
    """The observations of a batch, without their masks, and which of them count."""
    seen = nested.without_mask(batch.observation)
    if isinstance(batch, Transitions):
        return seen, valid(batch)
    flat = nested.map_parts(lambda x: tf.reshape(x, [-1, *x.shape[2:]]), seen)
    return flat, tf.ones([nested.batch_size(flat)])


def of_actions(outputs: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
    """Return what `outputs` [M, A, N] say of actions [M]: [M, N].

    Under XLA on a CPU the gradient of a gather is a loop over its rows; that of this sum is not.
    """
    taken = tf.one_hot(action, outputs.shape[1])
    return tf.reduce_sum(outputs * taken[:, :, tf.newaxis], axis=1)


def valid(batch: Transitions) -> tf.Tensor:
    """Return one for each transition [M] that counts, however much, and zero for the others."""
    return tf.cast(batch.mask > 0.0, tf.float32)


@contextlib.contextmanager
def _told_if_shared() -> Iterator[None]:
    """Context in which TF-Agents' complaint of shared weights is told in the config's words."""
    try:
        yield
    except ValueError as error:
        if "shares weights" not in str(error):
            raise
        raise _shared() from error


def _shared() -> UserError:
    return UserError(
        "network: it gives the same layers at every call, so that the target network would be the "
        "online one: give a class, or a function that makes layers anew."
    )


def _split(observation: Any) -> tuple[Any, Any]:
    """Return an observation, or its spec, as what the network sees and the mask of actions."""
    return nested.without_mask(observation), nested.mask_of(observation)


def _as_transition(batch: Transitions) -> trajectory.Transition:
    start = specs.zero_time_steps(batch.observation)
    end = specs.zero_time_steps(batch.next_observation)._replace(
        reward=batch.reward, discount=batch.discount
    )
    return trajectory.Transition(start, policy_step.PolicyStep(batch.action, (), ()), end)

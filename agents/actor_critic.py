"""An actor and a critic behind what an agent remembers: acting, and estimating values."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import tensorflow as tf
from tf_agents.utils import common

from sparring import nested
from sparring.agents.agent import Estimate
from sparring.agents.networks import distributions, masks, specs
from sparring.agents.networks.headed import HeadedNetwork, Torso
from sparring.agents.networks.normalizers import Normalizer, observation_normalizer
from sparring.agents.networks.recurrent import Memories, Memory, Part, State


class ActorCritic:
    """Mixin of an agent that samples from a policy and estimates V(s), with a memory or without.

    `make_networks` builds the networks; the class it is mixed into keeps the actor under
    `_actor_net` and the critic under `_value_net`, as TF-Agents does.
    """

    action_spec: Any
    observation_normalizer: Normalizer | None
    memories: Memories | None
    _action_space: gymnasium.Space
    _actor_net: HeadedNetwork
    _value_net: HeadedNetwork

    def make_networks(
        self,
        observation_space: gymnasium.Space,
        network: Torso,
        heads: Mapping[str, Torso],
        memory: Callable[[], Memory] | None,
        share_network: bool,
        normalize_observations: bool,
    ) -> tuple[Any, list[HeadedNetwork]]:
        """Return the specification of what the networks see, and one for each of `heads`.

        Each has a torso of its own from `network`, and a memory of its own from `memory`; with
        `share_network` they have one of each between them.
        """
        if share_network:
            network = functools.cache(network)
        space = nested.without_mask(observation_space)
        self.observation_normalizer = (
            observation_normalizer(space) if normalize_observations else None
        )
        spec = specs.time_step_spec(space)
        self.memories = None
        if memory is None:
            normalizer = self.observation_normalizer
            return spec, [
                HeadedNetwork(spec.observation, network, head, normalizer, name)
                for name, head in heads.items()
            ]
        count = 1 if share_network else len(heads)
        self.memories = Memories(memory, count, spec.observation, self.observation_normalizer)
        spec = specs.time_step_spec(self.memories.space)
        return spec, [
            HeadedNetwork(spec.observation, self._behind_memory(network, n % count), head, name=k)
            for n, (k, head) in enumerate(heads.items())
        ]

    def _behind_memory(self, network: Torso, number: int) -> Torso:
        """A torso behind memory `number`, which has normalised what it was shown."""
        assert self.memories is not None
        return functools.partial(Part, network, number, self.memories.width)

    def parts(self) -> dict[str, tf.Module]:
        """Return the modules that were learned: enough to act and to estimate values."""
        more = {"normalizer": self.observation_normalizer, "memories": self.memories}
        return {"actor": self._actor_net, "critic": self._value_net} | {
            k: v for k, v in more.items() if v is not None
        }

    # ---- remembering -----------------------------------------------------------------------------

    def start(self, batch: int) -> State:
        """Return the state before the first step of `batch` episodes.

        See sparring.agents.networks.recurrent.
        """
        return () if self.memories is None else self.memories.start(batch)

    def see(self, observation: Any, state: State) -> tuple[Any, State]:
        """Return the input of all methods below for observations, and the state after a step."""
        if self.memories is None:
            return observation, ()
        seen, state = self.memories.step(nested.without_mask(observation), state)
        return masks.beside(seen, observation), state

    def see_sequences(self, observation: Any, first: Any, state: State) -> Any:
        """Return the input of the networks for whole sequences, by the memory as it is now.

        `observation` [T * N, ...] and `first` [T * N] are time-major, `state` [N, S] is that before
        the first steps. Without a memory they are steps in any order.
        """
        if self.memories is None:
            return observation
        seen = self.memories.sequence(nested.without_mask(observation), first, state)
        return masks.beside(seen, observation)

    def take_up(self, observation: Any, mask: tf.Tensor) -> None:
        """Update the normalizer by the observations [N, ...] whose mask [N] is one."""
        if self.observation_normalizer is not None:
            self.observation_normalizer.update(nested.without_mask(observation), mask)

    # ---- acting ----------------------------------------------------------------------------------

    def distribution(self, observation: Any) -> distributions.tfd.Distribution:
        """The policy at observations [B, ...], over the actions that their mask allows."""
        policy = self._actor_net(nested.without_mask(observation))[0]
        mask = nested.mask_of(observation)
        return policy if mask is None else masks.masked(policy, mask, self._action_space)

    def value(self, observation: Any) -> tf.Tensor:
        """V(s) [B] of observations [B, ...]."""
        return self._value_net(nested.without_mask(observation))[0]

    def act(
        self, observation: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Sampled actions [B, ...], their log probabilities [B] and values [B]; `keys` [B, 2]."""
        del progress
        policy = self.distribution(observation)
        action = distributions.sample(policy, keys)
        log_prob = common.log_probability(policy, action, self.action_spec)
        kept = {"log_prob": log_prob, "value": self.value(observation)}
        return action, kept | self.kept_beside(observation, policy)

    def log_probability(self, seen: Any, action: tf.Tensor) -> tf.Tensor:
        """Return the log probabilities [B] of actions [B, ...], such as an expert's."""
        policy = self.distribution(seen)
        found: tf.Tensor = common.log_probability(policy, action, self.action_spec)
        return found

    def kept_beside(
        self, observation: Any, policy: distributions.tfd.Distribution
    ) -> dict[str, tf.Tensor]:
        """Return what else is kept of a step at observations [B, ...]: nothing."""
        del observation, policy
        return {}

    def act_greedy(self, observation: tf.Tensor) -> tf.Tensor:
        """The likeliest actions [B, ...]."""
        return tf.cast(self.distribution(observation).mode(), self.action_spec.dtype)

    def act_sampled(
        self, observation: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor
    ) -> tf.Tensor:
        """Actions [B, ...] as they are sampled in training."""
        del progress
        return distributions.sample(self.distribution(observation), keys)

    def scores(self, observation: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the parameters of the policy.

        They are logits [B, A] or [B, K, A], or mean and stddev [B, D].
        """
        return distributions.parameters(self.distribution(observation))

    def estimates(self) -> dict[str, Estimate]:
        """Return the parameters of the policy, and the value, for export."""
        return {
            "scores": Estimate(self.scores, "The greedy action, and what it was chosen by.", True),
            "value": Estimate(
                lambda seen: {"value": self.value(seen)},
                "V(s), the discounted return to be expected.",
            ),
        }

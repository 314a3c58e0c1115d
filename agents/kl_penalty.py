"""Penalty on the KL divergence of the old policy from the new, its coefficient adapted.

Schulman et al. 2017, "Proximal policy optimization algorithms", section 4.
"""

import tensorflow as tf

from sparring.agents.advantages import Minibatch, mean_of_valid, share_of_mean
from sparring.agents.networks import distributions
from sparring.distribute import replicas
from sparring.errors import UserError

_PREFIX = "policy_"  # of the old policy's parameters, among what is kept of a step


class AdaptiveKL(tf.Module):
    """Coefficient times KL(old || new), which seeks the divergence `target` of an iteration.

    The divergence is that of the distributions, not an estimate from actions. After an iteration's
    updates it is taken over the whole rollout: above `tolerance` times the target the coefficient
    is multiplied by `factor`, below the target divided by `tolerance` it is divided by it.

    Args:
      target: divergence in nats.
      coefficient: the first.
      tolerance: share of the target, above one.
      factor: of the changes, above one.
    """

    def __init__(
        self,
        target: float = 0.01,
        coefficient: float = 1.0,
        tolerance: float = 1.5,
        factor: float = 2.0,
    ) -> None:
        super().__init__(name="kl_penalty")
        self.target = target
        self.tolerance = tolerance
        self.factor = factor
        self.coefficient = replicas.replicated(float(coefficient))

    def kept(self, policy: distributions.tfd.Distribution) -> dict[str, tf.Tensor]:
        """Return the parameters of the policy that acts, each [B, ...], to be kept of the step.

        Raises:
          UserError: nobody knows the parameters of such a distribution.
        """
        parameters = distributions.parameters(policy)
        if not parameters:
            raise UserError(
                f"agent.kl_penalty: the KL divergence of a {type(policy).__name__} is not known, "
                "which agent.head makes: let it derive from "
                "sparring.agents.networks.distributions.KeyedDistribution, or choose agent=ppo."
            )
        return {f"{_PREFIX}{name}": value for name, value in parameters.items()}

    def parameters(self, extras: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return the parameters that `kept` gave, of what was kept of all steps."""
        return {
            name.removeprefix(_PREFIX): value
            for name, value in extras.items()
            if name.startswith(_PREFIX)
        }

    def loss(
        self, batch: Minibatch, policy: distributions.tfd.Distribution, weights: tf.Tensor
    ) -> tf.Tensor:
        """Return a replica's share of the penalty, of `policy` at a minibatch's observations."""
        divergence = distributions.kl_divergence(batch.policy, policy)  # [M]
        return self.coefficient * share_of_mean(divergence, weights)

    def adapt(
        self, batch: Minibatch, policy: distributions.tfd.Distribution
    ) -> dict[str, tf.Tensor]:
        """Adapt the coefficient to the divergence of `policy` at all steps; return both.

        The coefficient returned is the one that was used. It stays within 1e-6 and 1e6, so that it
        finds back from either end.
        """
        divergence = mean_of_valid(distributions.kl_divergence(batch.policy, policy), batch.mask)
        used = tf.identity(self.coefficient)
        change = tf.where(divergence > self.tolerance * self.target, self.factor, 1.0)
        change = tf.where(divergence < self.target / self.tolerance, 1.0 / self.factor, change)
        self.coefficient.assign(tf.clip_by_value(used * change, 1e-6, 1e6))
        return {"policy/kl": divergence, "policy/kl_coefficient": used}


DESCRIPTIONS = {
    "loss/kl": "KL divergence of the old policy from the new, times its coefficient, mean over "
    "minibatches.",
    "policy/kl": "KL divergence of the policy that acted from the one after an iteration's "
    "updates, in nats, mean over the rollout.",
    "policy/kl_coefficient": "Coefficient of the KL penalty in an iteration.",
}

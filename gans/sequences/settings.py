"""Rules of a game over sequences."""

from dataclasses import dataclass

from sparring.errors import UserError


@dataclass(frozen=True)
class SequenceSettings:
    """Rules of SeqGAN (Yu et al. 2017, algorithm 1).

    Args:
      batch_size: sequences of a step of either player, of all replicas together.
      n_critic: the discriminator's steps for each one of the generator.
      pretraining: real sequences that the generator learns by maximum likelihood at first; with
        as many as the run has, it never plays: the control.
      discriminator_pretraining: real sequences that the discriminator is shown after that, while
        the generator stays as it is.
      rollouts: completions of each prefix whose mean reward is its value.
      rollout_rate: weight of the past in the rollout policy, after each step of the generator.
      baseline: whether the mean reward of a batch at each position is taken off.
    """

    batch_size: int = 64
    n_critic: int = 5
    pretraining: int = 1_000_000
    discriminator_pretraining: int = 100_000
    rollouts: int = 8
    rollout_rate: float = 0.8
    baseline: bool = True

    def __post_init__(self) -> None:
        for name in ("batch_size", "n_critic", "rollouts"):
            if getattr(self, name) < 1:
                raise UserError(f"game.{name}={getattr(self, name)}: 1 at least.")

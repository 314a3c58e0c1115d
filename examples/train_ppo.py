"""Train PPO on a Gymnasium environment, and print the best evaluated return.

python examples/train_ppo.py --env CartPole-v1 --steps 50000 --folder runs/ppo
"""

import argparse
from functools import partial

import sparring


def make_trainer(env: str, steps: int, seed: int = 0) -> sparring.OnPolicyTrainer:
    sparring.set_random_seed(seed)  # of the initial weights
    return sparring.OnPolicyTrainer(
        agent=partial(sparring.PPO, gae_lambda=0.9, entropy_coefficient=0.01),
        environment=sparring.Gymnasium(env),
        num_envs=8,
        rollout_steps=128,
        seed=seed,
        total_steps=steps,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--folder", default="runs/ppo")
    arguments = parser.parse_args()
    trainer = make_trainer(arguments.env, arguments.steps)
    outcome = sparring.fit(trainer, arguments.folder)
    trainer.close()
    best = outcome.best.get("eval/episode_return", float("nan"))  # of a run stopped early, none
    print(f"{outcome.status}; best return: {best:.1f}")


if __name__ == "__main__":
    main()

"""Load a trained policy and step it in Gymnasium.

sparring rl env=gymnasium env.id=CartPole-v1 run.name=cartpole
python examples/step_policy.py runs/cartpole --env CartPole-v1
"""

import argparse

import gymnasium

import sparring


def episode_return(policy: sparring.Policy, env: gymnasium.Env, seed: int) -> float:
    observation, _ = env.reset(seed=seed)
    state = None  # what a recurrent policy remembers
    total = 0.0
    ended = False
    while not ended:
        action, state = policy.predict(observation, state)
        observation, reward, terminated, truncated, _ = env.step(action)
        total += float(reward)
        ended = terminated or truncated
    return total


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", help="folder of a run started from the command line")
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--episodes", type=int, default=5)
    arguments = parser.parse_args()
    policy = sparring.load_policy(arguments.run)
    env = gymnasium.make(arguments.env)
    returns = [episode_return(policy, env, seed) for seed in range(arguments.episodes)]
    env.close()
    print(f"mean return: {sum(returns) / len(returns):.1f}")


if __name__ == "__main__":
    main()

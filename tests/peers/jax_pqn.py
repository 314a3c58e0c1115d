"""JAX's side of a benchmark: `python jax_pqn.py pqn '{"num_envs": 32, ...}' steps threads` prints
steps/s.

PQN (Gallici et al. 2024) wholly inside one jit: environments of gymnax, lambda returns, a scan over
iterations; as in `jax_ppo.py`. Run with the interpreter that `make peers` sets up. --learn also
prints the mean return of the episodes that ended.
"""

from typing import NamedTuple

from jax_parts import apply, measure, network  # before JAX, which counts the cores

# isort: split

import gymnax
import jax
import jax.numpy as jnp
import optax

DISCOUNT = 0.99
TRACE = 0.65
EPSILON = 0.1


class Step(NamedTuple):
    """Steps of a rollout: all [T, B, ...]. `value` is that of the best action."""

    observation: jax.Array
    action: jax.Array
    value: jax.Array
    reward: jax.Array
    done: jax.Array


def loss(weights: list[dict], batch: tuple, settings: dict) -> jax.Array:
    """Half the squared error of the values of actions; everything [M, ...]."""
    observation, action, returns = batch
    values = apply(weights, observation, settings)
    taken = jnp.take_along_axis(values, action[:, None], axis=1)[:, 0]
    return 0.5 * jnp.square(returns - taken).mean()


def lambda_returns(steps: Step, last_value: jax.Array) -> jax.Array:
    """Return [T, B]; `last_value` [B] is that of the observation that the rollout ends with."""

    def back(carry: tuple, step: Step) -> tuple:
        after, next_value = carry
        mixed = (1 - TRACE) * next_value + TRACE * after
        found = step.reward + DISCOUNT * (1 - step.done) * mixed
        return (found, step.value), found

    return jax.lax.scan(back, (last_value, last_value), steps, reverse=True)[1]


def trainer(settings: dict) -> tuple:
    """State that a run carries, and the iteration that takes it on: one rollout and its updates."""
    env, env_params = gymnax.make(settings["env"])
    num_envs = settings["num_envs"]
    samples = settings["num_envs"] * settings["rollout_steps"]
    optimizer = optax.chain(
        optax.clip_by_global_norm(10.0), optax.adam(settings["learning_rate"], eps=1e-7)
    )

    def act(carry: tuple, _: None) -> tuple:
        weights, slots, state, observation, returned, key = carry
        key, key_act, key_chance, key_env = jax.random.split(key, 4)
        values = apply(weights, observation, settings)
        random = jax.random.randint(key_act, (num_envs,), 0, env.num_actions)
        chance = jax.random.uniform(key_chance, (num_envs,))
        action = jnp.where(chance < EPSILON, random, values.argmax(1))
        after, state, reward, terminated, truncated, _ = jax.vmap(env.step, (0, 0, 0, None))(
            jax.random.split(key_env, num_envs), state, action, env_params
        )
        done = terminated | truncated
        total = returned + reward
        step = Step(observation, action, values.max(1), reward, done.astype(jnp.float32))
        ended = jnp.stack([jnp.sum(total * done), jnp.sum(done)])
        return (weights, slots, state, after, jnp.where(done, 0.0, total), key), (step, ended)

    def update(learned: tuple, batch: tuple) -> tuple:
        weights, slots = learned
        gradient = jax.grad(loss)(weights, batch, settings)
        change, slots = optimizer.update(gradient, slots)
        return (optax.apply_updates(weights, change), slots), None

    def iteration(carry: tuple, _: None) -> tuple:
        carry, (steps, ended) = jax.lax.scan(act, carry, None, settings["rollout_steps"])
        weights, slots, state, observation, returned, key = carry
        after = apply(weights, observation, settings).max(1)
        rollout = (steps.observation, steps.action, lambda_returns(steps, after))
        flat = jax.tree.map(lambda x: x.reshape(samples, *x.shape[2:]), rollout)

        def epoch(learned: tuple, key: jax.Array) -> tuple:
            order = jax.random.permutation(key, samples).reshape(settings["minibatches"], -1)
            return jax.lax.scan(update, learned, jax.tree.map(lambda x: x[order], flat))

        key, key_epochs = jax.random.split(key)
        keys = jax.random.split(key_epochs, settings["epochs"])
        (weights, slots), _ = jax.lax.scan(epoch, (weights, slots), keys)
        return (weights, slots, state, observation, returned, key), ended.sum(0)

    def opening(key: jax.Array) -> tuple:
        key, key_env, key_weights = jax.random.split(key, 3)
        observation, state = jax.vmap(env.reset, (0, None))(
            jax.random.split(key_env, num_envs), env_params
        )
        weights = network(key_weights, observation.shape[1:], settings, env.num_actions, 1.0)
        return weights, optimizer.init(weights), state, observation, jnp.zeros(num_envs), key

    return opening(jax.random.key(0)), iteration


measure(trainer)

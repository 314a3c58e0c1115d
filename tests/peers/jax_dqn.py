"""JAX's side of a benchmark: `python jax_dqn.py dqn '{"num_envs": 1, ...}' steps threads` prints
steps/s.

DQN wholly inside one jit: environments of gymnax, a ring of transitions, a scan over iterations; as
  in `jax_ppo.py`.
Run with the interpreter that `make peers` sets up. --learn also prints the mean return of the
episodes that ended.
"""

from jax_parts import apply, measure, network  # before JAX, which counts the cores

# isort: split

import gymnax
import jax
import jax.numpy as jnp
import optax

# Iterations between targets; steps to EPSILON
DISCOUNT = 0.99
TARGET_PERIOD = 250
EPSILON = 0.1
EXPLORING = 10_000


def loss(weights: list[dict], target: list[dict], batch: tuple, settings: dict) -> jax.Array:
    """Huber's of the one-step error; everything [M, ...]."""
    observation, action, reward, done, after = batch
    best = apply(target, after.astype(jnp.float32), settings).max(1)
    value = jnp.take_along_axis(
        apply(weights, observation.astype(jnp.float32), settings), action[:, None], axis=1
    )
    return optax.huber_loss(value[:, 0], reward + DISCOUNT * (1 - done) * best).mean()


def trainer(settings: dict) -> tuple:
    """State that a run carries, and the iteration that takes it on: some steps, then one update."""
    env, env_params = gymnax.make(settings["env"])
    num_envs = settings["num_envs"]
    capacity = settings["capacity"]
    optimizer = optax.adam(settings["learning_rate"])

    def act(carry: tuple, _: None) -> tuple:
        weights, ring, number, state, observation, returned, key = carry
        key, key_act, key_chance, key_env = jax.random.split(key, 4)
        greedy = apply(weights, observation.astype(jnp.float32), settings).argmax(1)
        chance = jnp.maximum(EPSILON, 1 - number / EXPLORING)
        random = jax.random.randint(key_act, (num_envs,), 0, env.num_actions)
        action = jnp.where(jax.random.uniform(key_chance, (num_envs,)) < chance, random, greedy)
        after, state, reward, terminated, truncated, _ = jax.vmap(env.step, (0, 0, 0, None))(
            jax.random.split(key_env, num_envs), state, action, env_params
        )
        done = terminated | truncated
        total = returned + reward
        stored = (observation, action, reward, done.astype(jnp.float32), after)
        place = (number + jnp.arange(num_envs)) % capacity
        ring = jax.tree.map(
            lambda kept, new: kept.at[place].set(new.astype(kept.dtype)), ring, stored
        )
        ended = jnp.stack([jnp.sum(total * done), jnp.sum(done)])
        returned = jnp.where(done, 0.0, total)
        return (weights, ring, number + num_envs, state, after, returned, key), ended

    def iteration(carry: tuple, _: None) -> tuple:
        target, slots, iterations, acting = carry
        acting, ended = jax.lax.scan(act, acting, None, settings["rollout_steps"])
        weights, ring, number, *rest, key = acting
        key, key_batch = jax.random.split(key)
        rows = jax.random.randint(
            key_batch, (settings["batch_size"],), 0, jnp.minimum(number, capacity)
        )
        batch = jax.tree.map(lambda kept: kept[rows], ring)
        change, slots = optimizer.update(jax.grad(loss)(weights, target, batch, settings), slots)
        weights = optax.apply_updates(weights, change)
        due = iterations % TARGET_PERIOD == 0
        target = jax.tree.map(lambda new, old: jnp.where(due, new, old), weights, target)
        return (target, slots, iterations + 1, (weights, ring, number, *rest, key)), ended.sum(0)

    def opening(key: jax.Array) -> tuple:
        key, key_env, key_weights = jax.random.split(key, 3)
        observation, state = jax.vmap(env.reset, (0, None))(
            jax.random.split(key_env, num_envs), env_params
        )
        weights = network(key_weights, observation.shape[1:], settings, env.num_actions, 1.0)
        seen = jnp.zeros((capacity, *observation.shape[1:]), settings["stored"])
        numbers = jnp.zeros(capacity)
        ring = (seen, jnp.zeros(capacity, jnp.int32), numbers, numbers + 0, seen + 0)
        acting = (weights, ring, jnp.int32(0), state, observation, jnp.zeros(num_envs), key)
        return jax.tree.map(jnp.copy, weights), optimizer.init(weights), jnp.int32(0), acting

    return opening(jax.random.key(0)), iteration


measure(trainer)

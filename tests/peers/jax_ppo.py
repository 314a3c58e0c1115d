"""JAX's side of a benchmark: `python jax_ppo.py ppo '{"num_envs": 4, ...}' steps threads` prints
steps/s.

PPO wholly inside one jit, in the manner of PureJaxRL (Lu et al. 2022): environments of gymnax, a
scan over iterations. As there, a time limit ends an episode. Run with the interpreter that `make
peers` sets up. --learn also prints the mean return of the episodes that ended.
"""

from typing import NamedTuple

from jax_parts import apply, measure, network  # before JAX, which counts the cores

# isort: split

import gymnax
import jax
import jax.numpy as jnp
import optax

CLIP = 0.2
VALUE = 0.5
DISCOUNT = 0.99
GAE_LAMBDA = 0.95


class Step(NamedTuple):
    """Steps of a rollout: all [T, B, ...], and [M, ...] in a minibatch."""

    observation: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    done: jax.Array


def log_prob_of(logits: jax.Array, action: jax.Array) -> jax.Array:
    return jnp.take_along_axis(jax.nn.log_softmax(logits), action[:, None], axis=1)[:, 0]


def loss(params: dict, batch: tuple, settings: dict) -> jax.Array:
    step, advantage, returns = batch
    logits = apply(params["actor"], step.observation, settings)
    ratio = jnp.exp(log_prob_of(logits, step.action) - step.log_prob)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    policy = -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage).mean()
    value = jnp.square(apply(params["critic"], step.observation, settings)[:, 0] - returns).mean()
    entropy = -(jax.nn.softmax(logits) * jax.nn.log_softmax(logits)).sum(1).mean()
    return policy + VALUE * value - settings["entropy"] * entropy


def advantages(steps: Step, last_value: jax.Array) -> jax.Array:
    def back(carry: tuple, step: Step) -> tuple:
        advantage, next_value = carry
        delta = step.reward + DISCOUNT * next_value * (1 - step.done) - step.value
        advantage = delta + DISCOUNT * GAE_LAMBDA * (1 - step.done) * advantage
        return (advantage, step.value), advantage

    return jax.lax.scan(back, (jnp.zeros_like(last_value), last_value), steps, reverse=True)[1]


def trainer(settings: dict) -> tuple:
    """State that a run carries, and the iteration that takes it on: one rollout and its updates."""
    env, env_params = gymnax.make(settings["env"])
    num_envs = settings["num_envs"]
    samples = settings["num_envs"] * settings["rollout_steps"]
    adam = optax.adam(settings["learning_rate"], eps=1e-5)
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), adam)

    def act(carry: tuple, _: None) -> tuple:
        params, slots, state, observation, returned, key = carry
        key, key_act, key_env = jax.random.split(key, 3)
        logits = apply(params["actor"], observation, settings)
        action = jax.random.categorical(key_act, logits)
        value = apply(params["critic"], observation, settings)[:, 0]
        keys = jax.random.split(key_env, num_envs)
        after, state, reward, terminated, truncated, _ = jax.vmap(env.step, (0, 0, 0, None))(
            keys, state, action, env_params
        )
        done = terminated | truncated
        total = returned + reward
        step = Step(
            observation,
            action,
            log_prob_of(logits, action),
            value,
            reward,
            done.astype(jnp.float32),
        )
        # The returns of the episodes that end, and how many
        ended = jnp.stack([jnp.sum(total * done), jnp.sum(done)])
        return (params, slots, state, after, jnp.where(done, 0.0, total), key), (step, ended)

    def update(learned: tuple, batch: tuple) -> tuple:
        params, slots = learned
        gradient = jax.grad(loss)(params, batch, settings)
        change, slots = optimizer.update(gradient, slots)
        return (optax.apply_updates(params, change), slots), None

    def iteration(carry: tuple, _: None) -> tuple:
        carry, (steps, ended) = jax.lax.scan(act, carry, None, settings["rollout_steps"])
        params, slots, state, observation, returned, key = carry
        advantage = advantages(steps, apply(params["critic"], observation, settings)[:, 0])
        rollout = (steps, advantage, advantage + steps.value)
        flat = jax.tree.map(lambda x: x.reshape(samples, *x.shape[2:]), rollout)

        def epoch(learned: tuple, key: jax.Array) -> tuple:
            order = jax.random.permutation(key, samples).reshape(settings["minibatches"], -1)
            return jax.lax.scan(update, learned, jax.tree.map(lambda x: x[order], flat))

        key, key_epochs = jax.random.split(key)
        keys = jax.random.split(key_epochs, settings["epochs"])
        (params, slots), _ = jax.lax.scan(epoch, (params, slots), keys)
        return (params, slots, state, observation, returned, key), ended.sum(0)

    def opening(key: jax.Array) -> tuple:
        key, key_env, key_actor, key_critic = jax.random.split(key, 4)
        observation, state = jax.vmap(env.reset, (0, None))(
            jax.random.split(key_env, num_envs), env_params
        )
        shape = observation.shape[1:]
        actor = network(key_actor, shape, settings, env.num_actions, 0.01)
        params = {"actor": actor, "critic": network(key_critic, shape, settings, 1, 1.0)}
        return params, optimizer.init(params), state, observation, jnp.zeros(num_envs), key

    return opening(jax.random.key(0)), iteration


measure(trainer)

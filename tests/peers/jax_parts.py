"""Networks of JAX's side of a benchmark, and how its programs are timed; imported before JAX counts
the cores.

The arguments of a peer's process are: kind, settings as JSON, steps, threads. `threads` 1 pins it
to one core, 2 leaves it all of them.
"""

import json
import os
import sys
import time
from collections.abc import Callable

if sys.argv[4] == "1":
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import jax
import jax.numpy as jnp

CHUNKS = 10
ACTIVATIONS = {"Tanh": jnp.tanh, "ReLU": jax.nn.relu}


def dense(key: jax.Array, inputs: int, outputs: int, gain: float) -> dict:
    return {
        "w": jax.nn.initializers.orthogonal(gain)(key, (inputs, outputs)),
        "b": jnp.zeros(outputs),
    }


def normalized(layer: dict, x: jax.Array) -> jax.Array:
    """Layer normalisation over the last axis, of a layer that has a scale for it."""
    if "scale" not in layer:
        return x
    centred = x - x.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + 1e-6) * layer["scale"] + layer["offset"]


def network(key: jax.Array, shape: tuple, settings: dict, outputs: int, gain: float) -> list[dict]:
    """Weights of a convolution of 3 x 3, if `filters` says so, of the dense layers, and of the
    head. With `layer_norm` all but the head are normalised.
    """
    keys = list(jax.random.split(key, len(settings["units"]) + 2))
    layers = []
    size = shape[-1]
    if "filters" in settings:
        layers.append(dense(keys.pop(), 9 * shape[-1], settings["filters"], 2**0.5))
        size = (shape[0] - 2) * (shape[1] - 2) * settings["filters"]
    for units in settings["units"]:
        layers.append(dense(keys.pop(), size, units, 2**0.5))
        size = units
    if settings.get("layer_norm"):
        for layer in layers:
            layer["scale"] = jnp.ones_like(layer["b"])
            layer["offset"] = jnp.zeros_like(layer["b"])
    return [*layers, dense(keys.pop(), size, outputs, gain)]


def apply(layers: list[dict], x: jax.Array, settings: dict) -> jax.Array:
    activation = ACTIVATIONS[settings["activation"]]
    if "filters" in settings:
        layer = layers[0]
        layers = layers[1:]
        # as a matrix product of patches: in a loop XLA's own convolution is ten times slower on a
        # CPU
        rows = x.shape[1] - 2
        columns = x.shape[2] - 2
        x = jnp.concatenate(
            [x[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3)], axis=-1
        )
        x = x @ layer["w"]
        x = activation(normalized(layer, x + layer["b"])).reshape(x.shape[0], -1)
    for layer in layers[:-1]:
        x = activation(normalized(layer, x @ layer["w"] + layer["b"]))
    return x @ layers[-1]["w"] + layers[-1]["b"]


def measure(trainer: Callable[[dict], tuple]) -> None:
    """Print the steps per second of what `trainer(settings)` gives: a carry, and the iteration that
    takes it on.

    --learn also prints the mean return of the episodes that ended.
    """
    settings = json.loads(sys.argv[2])
    steps = int(sys.argv[3])
    threads = int(sys.argv[4])
    started = time.perf_counter()
    each = settings["num_envs"] * settings["rollout_steps"]
    carry, iteration = trainer(settings)
    count = max(steps // (each * CHUNKS), 1)
    program = (
        jax.jit(lambda c: jax.lax.scan(iteration, c, None, count), donate_argnums=0)
        .lower(carry)
        .compile()
    )
    compiled = time.perf_counter()
    ended = []
    for chunk in range(CHUNKS + 1):  # the first is the warm-up
        carry, found = program(carry)
        ended.append(found.sum(0).tolist())
        if chunk == 0:
            begun = time.perf_counter()
    seconds = time.perf_counter() - begun
    taken = CHUNKS * count * each
    if "--learn" in sys.argv:
        print([round(total / max(episodes, 1), 1) for total, episodes in ended])
    print(
        json.dumps(
            {
                "steps_per_second": taken / seconds,
                "threads": threads,
                "compile_seconds": compiled - started,
            }
        )
    )

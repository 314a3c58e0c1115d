"""Keras optimizer with a learning rate that follows the run's progress."""

import copy
from collections.abc import Iterable, Sequence

import tensorflow as tf

from sparring.distribute import replicas
from sparring.optim.pruning import Magnitude
from sparring.optim.schedules import Schedule, as_schedule


def another(keras: tf.keras.optimizers.Optimizer) -> tf.keras.optimizers.Optimizer:
    """Return a Keras optimizer of the same settings, without slots."""
    return type(keras).from_config(keras.get_config())


def adam(
    learning_rate: Schedule | float = 3e-4,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    global_clipnorm: float | None = None,
) -> "Scheduled":
    """Return Adam (Kingma and Ba 2014), which clips gradients to a global norm if one is given."""
    keras = tf.keras.optimizers.Adam(
        beta_1=beta_1, beta_2=beta_2, epsilon=epsilon, global_clipnorm=global_clipnorm
    )
    return Scheduled(keras, learning_rate)


class Scheduled:
    """Keras optimizer whose learning rate is a number or a schedule, times another if given.

    Schedules are those of `sparring.optim.schedules`. Gradients are summed over replicas, and then
    clipped by the Keras optimizer itself (`global_clipnorm`). `build` fixes the order of its slots
    to the order of `variables`: TF-Agents would order them by Keras' generated names, which differ
    between processes, and a restored checkpoint would then swap moments silently. `prune`, if
    given, decides after every update which weights are zero (`sparring.optim.pruning`).
    """

    def __init__(
        self,
        optimizer: tf.keras.optimizers.Optimizer,
        learning_rate: Schedule | float,
        schedule: Schedule | float | None = None,
        prune: Magnitude | None = None,
    ) -> None:
        self.keras = optimizer
        rate = as_schedule(learning_rate)
        factor = as_schedule(1.0 if schedule is None else schedule)
        self.learning_rate: Schedule = (
            rate if schedule is None else lambda progress: rate(progress) * factor(progress)
        )
        self.variables: list[tf.Variable] = []
        self.prune = prune

    def build(self, variables: Sequence[tf.Variable]) -> None:
        """Create the slots of `variables` now, in this order."""
        self.variables = list(variables)
        self.keras.build(self.variables)

    def another(self) -> "Scheduled":
        """Return an optimizer of the same settings and schedule, for other variables."""
        other = copy.copy(self)
        other.keras = another(self.keras)
        other.variables = []
        return other

    def step(
        self,
        gradients: Sequence[tf.Tensor],
        progress: tf.Tensor,
        name: str = "optimizer",
        due: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """Apply gradients (one per built variable); return global norms of gradient and change.

        With several replicas, each gives the gradient of its share of the loss. Frozen variables
        count in neither norm and do not change. Of several optimizers, `name` tells their norms
        apart (see `tag`). Where `due`, bool [], is false, nothing changes, moments included: a
        branch instead could not hold the sum over replicas.
        """
        norm = tag("gradient/norm", name)
        update_norm = tag("gradient/update_norm", name)
        gradients = replicas.all_reduce_sum(list(gradients))
        self.keras.learning_rate.assign(self.learning_rate(progress))
        pairs = [(g, v) for g, v in zip(gradients, self.variables, strict=True) if not is_frozen(v)]
        if not pairs:
            return {norm: tf.zeros([]), update_norm: tf.zeros([])}
        before = [tf.identity(v) for _, v in pairs]
        slots = list(self.keras.variables) if due is not None else []
        slots_before = [tf.identity(slot) for slot in slots]
        self.keras.apply_gradients(pairs, skip_gradients_aggregation=True)
        if self.prune is not None:
            for (_, v), b in zip(pairs, before, strict=True):
                replicas.assign(
                    v, self.prune.kept(tf.identity(v), b, progress, self.keras.iterations)
                )
        if due is not None:
            held = [*zip((v for _, v in pairs), before, strict=True)]
            for v, b in [*held, *zip(slots, slots_before, strict=True)]:
                replicas.assign(v, tf.where(due, v, b))
        change = [v - b for (_, v), b in zip(pairs, before, strict=True)]
        return {
            norm: tf.linalg.global_norm([g for g, _ in pairs]),
            update_norm: tf.linalg.global_norm(change),
        }


def freeze(variable: tf.Variable) -> None:
    """Exclude a variable from all updates by `Scheduled` in programs traced from now on."""
    variable._held_fast = True


def is_frozen(variable: tf.Variable) -> bool:
    """Return whether `freeze` was called on a variable."""
    return getattr(variable, "_held_fast", False)


DESCRIPTIONS = {
    "gradient/norm": "Global norm of the gradient before clipping, mean over updates.",
    "gradient/update_norm": "Global norm of the change one update makes to the weights, mean over "
    "updates.",
    "schedule/learning_rate": "Learning rate, mean over updates.",
}


def tag(tag: str, name: str) -> str:
    """Return a tag as the optimizer called `name` has it, such as "gradient/actor_norm".

    One alone is called "optimizer", and has it as it is.
    """
    group, _, quantity = tag.partition("/")
    return tag if name == "optimizer" else f"{group}/{name}_{quantity}"


def descriptions(names: Iterable[str]) -> dict[str, str]:
    """Return what the scalars of the optimizers called `names` measure, by tag."""
    return {
        tag(key, name): f"{name.capitalize()}: {text[0].lower()}{text[1:]}"
        for name in names
        for key, text in DESCRIPTIONS.items()
    }

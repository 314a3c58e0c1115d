"""Recommendation from implicit feedback, generated from known preferences."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.data import host_random
from sparring.data.dataset import Pairs
from sparring.data.preprocessing import InputSpec
from sparring.data.splits import SPLITS
from sparring.errors import UserError
from sparring.supervised.tasks import Values, log_softmax, needs


class Interactions(Pairs):
    """Users int64 [N] and the items they took, int64 [N], drawn from preferences `truth` [U, I].

    A user's preferences are the softmax of u . v + b, with normal u and v of `dimension` entries
    and popularities b of standard deviation `popularity`; the inner products have the standard
    deviation `taste`. Feedback is implicit: only items taken are known, which does not reveal what
    a user dislikes. The optimum is known: no order of the items beats the truth's. Interactions are
    identical in every run; `seed` fixes the order of the batches.
    """

    def __init__(
        self,
        seed: int,
        users: int = 300,
        items: int = 100,
        train: int = 60_000,
        test: int = 10_000,
        dimension: int = 4,
        taste: float = 2.0,
        popularity: float = 0.5,
    ) -> None:
        if min(train, test, dimension) < 1 or users < 2 or items <= TOP:
            raise UserError(
                f"data.users={users}, data.items={items}, data.train={train}, data.test={test}: "
                "two users, more than "
                f"{TOP} items and one interaction in each split at least."
            )
        if taste <= 0:
            raise UserError(
                f"data.taste={taste}: above zero, or all users like the same, and there is nothing "
                "to learn."
            )
        u, v = (
            host_random.normal(n * dimension, 21, i).reshape(n, dimension)
            for i, n in enumerate((users, items))
        )
        offsets = popularity * host_random.normal(items, 21, 2)
        self.truth = np.exp(log_softmax(taste / dimension**0.5 * u @ v.T + offsets))  # [U, I]
        self.classes = items
        self.names = tuple(map(str, range(items)))
        taken: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for stream, (split, count) in enumerate(zip(SPLITS, (train, test), strict=True)):
            drawn = host_random.uniform(2 * count, 22, stream).reshape(2, count)
            who = (drawn[0] * users).astype(np.int64)
            taken[split] = (who, host_random.choices(self.truth[who], drawn[1]))
        super().__init__(
            {s: t[0] for s, t in taken.items()}, {s: t[1] for s, t in taken.items()}, seed
        )
        self.raw = InputSpec("user", tf.TensorSpec([], tf.int64), limit=users)


TOP = 10  # number of items recommended to a user


class Recommendation:
    """Prediction of the item a user takes, by cross-entropy of a softmax over all items.

    The score is the probability that the next item a user takes is among the ten recommended ones,
    computed exactly from the true preferences. It stands beside that of recommending by the truth
    (the optimum) and that of recommending the ten most taken items to all (popularity).
    """

    objective = "eval/hit_rate"
    maximize = True
    answered: Mapping[str, str] = {
        "items": f"the {TOP} that the user most likely takes next, the likeliest first",
        "probabilities": "of each of them",
        "known": "whether there is such a user; if not, items are -1",
    }
    trained: Mapping[str, str] = {
        "train/hit_rate": "Share of training interactions whose item is among the ten with the "
        "highest logits."
    }
    descriptions: Mapping[str, str] = {
        "eval/hit_rate": "Chance that a user's next item is among the ten recommended, mean over "
        "users.",
        "eval/hit_rate_optimum": "The same of recommending each user its ten truly likeliest "
        "items.",
        "eval/hit_rate_popularity": "The same of recommending all the ten items most taken in the "
        "train split.",
        "eval/share_of_optimum": "How far the hit rate is from popularity's (0) to the optimum's "
        "(1).",
        "eval/cross_entropy": "Cross-entropy of the test split's items, in nats, mean over "
        "interactions.",
        "eval/cross_entropy_optimum": "The same by the true preferences: what no model can be "
        "expected to beat.",
    }

    def __init__(self, data: Any) -> None:
        self.truth: np.ndarray = needs(data, "truth", "recommendation", ["interactions"])
        self.outputs = self.truth.shape[1]
        _, taken = data.examples("train")
        counts = np.bincount(taken, minlength=self.outputs)
        self._popular = self._hit_rate(np.tile(counts, (len(self.truth), 1)))
        self._optimum = self._hit_rate(self.truth)
        who, items = data.examples("test")
        self._floor = float(-np.log(self.truth[who, items]).mean())
        self.notes: dict[str, Any] = {
            "users": self.truth.shape[0],
            "items": self.outputs,
            "recommended": TOP,
        }

    def _hit_rate(self, scores: np.ndarray) -> float:
        """Return the hit rate of recommending by scores [U, I]."""
        chosen = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
        return float(np.take_along_axis(self.truth, chosen, axis=1).sum(axis=1).mean())

    def loss(self, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Return the loss of each example, as `Task.loss` does."""
        return tf.nn.sparse_softmax_cross_entropy_with_logits(targets, outputs)

    def measures(self, outputs: tf.Tensor, targets: tf.Tensor) -> Values:
        """Return measures of a batch, as `Task.measures` does."""
        own = tf.gather(outputs, targets, batch_dims=1)[:, tf.newaxis]  # [B, 1]
        better = tf.reduce_sum(tf.cast(outputs > own, tf.float32), axis=1)  # [B]
        return {"train/hit_rate": tf.cast(better < float(TOP), tf.float32)}

    def answers(self, outputs: tf.Tensor) -> Values:
        """Return predictions by name, as `Task.answers` does."""
        _, items = tf.math.top_k(outputs, TOP)
        return {
            "items": items,
            "probabilities": tf.gather(tf.nn.softmax(outputs), items, batch_dims=1),
        }

    def evaluate(
        self, outputs: np.ndarray, targets: np.ndarray, network: tf.keras.layers.Layer
    ) -> dict[str, float]:
        """Return scores by tag, as `Task.evaluate` does; hit rates are always over all users."""
        users = np.arange(len(self.truth))
        found = self._hit_rate(np.asarray(network(tf.constant(users), training=False)))
        return {
            "eval/hit_rate": found,
            "eval/hit_rate_optimum": self._optimum,
            "eval/hit_rate_popularity": self._popular,
            "eval/share_of_optimum": (found - self._popular) / (self._optimum - self._popular),
            "eval/cross_entropy": float(
                -log_softmax(outputs)[np.arange(len(targets)), targets].mean()
            ),
            "eval/cross_entropy_optimum": self._floor,
        }

    def pictures(
        self, inputs: np.ndarray, outputs: np.ndarray, targets: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return no images."""
        return {}

"""Localization of one object in an image: boxes, and their overlap."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.supervised import plots
from sparring.supervised.tasks import Values, needs


def decode(outputs: tf.Tensor) -> tf.Tensor:
    """Turn any numbers [B, 4] into boxes [B, 4]: top, left, bottom, right.

    Edges are in shares of the image, within (-0.5, 1.5). The first two numbers give the centre, the
    others height and width, each through a sigmoid, so that a box always has a positive size.
    """
    centre, size = tf.split(tf.sigmoid(outputs), 2, axis=-1)
    return tf.concat([centre - size / 2.0, centre + size / 2.0], axis=-1)


def overlaps(boxes: tf.Tensor, others: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return IoU and generalised IoU, both [B], of boxes [B, 4] pair by pair.

    Rezatofighi et al. 2019, algorithm 1. IoU is the intersection over the union, from 0 to 1; the
    generalised one subtracts the share of the smallest box around both that neither covers, and
    tells apart boxes that do not touch, down to -1.
    """
    inner = _area(
        tf.concat(
            [tf.maximum(boxes[:, :2], others[:, :2]), tf.minimum(boxes[:, 2:], others[:, 2:])],
            axis=1,
        )
    )
    outer = _area(
        tf.concat(
            [tf.minimum(boxes[:, :2], others[:, :2]), tf.maximum(boxes[:, 2:], others[:, 2:])],
            axis=1,
        )
    )
    union = _area(boxes) + _area(others) - inner
    iou = tf.math.divide_no_nan(inner, union)
    return iou, iou - tf.math.divide_no_nan(outer - union, outer)


def _area(boxes: tf.Tensor) -> tf.Tensor:
    return tf.reduce_prod(tf.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), axis=1)


class Localisation:
    """Localization of the one object in an image, by the distance of edges and generalised IoU.

    The loss is the L1 distance and 1 minus the generalised IoU, weighted as in DETR (Carion et al.
    2020, section 3.1, whose weights are 5 and 2).
    """

    outputs = 4
    objective = "eval/iou"
    maximize = True
    answered: Mapping[str, str] = {"box": "top, left, bottom, right in shares of the image"}
    trained = {"train/iou": "Intersection over union of training boxes, mean over batches."}  # noqa: RUF012
    descriptions: Mapping[str, str] = {
        "eval/iou": "Intersection over union of the boxes of the test split with the true ones, "
        "mean.",
        "eval/iou_above_half": "Share of the test split whose intersection over union is above "
        "0.5.",
        "eval/iou_above_three_quarters": "Share of the test split whose intersection over union is "
        "above 0.75.",
    }

    def __init__(self, data: Any) -> None:
        needs(data, "boxed", "localisation", ["boxes"])
        self.notes: dict[str, Any] = {"boxes": "top, left, bottom, right in shares of the image"}

    def loss(self, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Return the loss of each example, as `Task.loss` does."""
        boxes = decode(outputs)
        _, generalised = overlaps(boxes, targets)
        return 5.0 * tf.reduce_sum(tf.abs(boxes - targets), axis=1) + 2.0 * (1.0 - generalised)

    def measures(self, outputs: tf.Tensor, targets: tf.Tensor) -> Values:
        """Return measures of a batch, as `Task.measures` does."""
        return {"train/iou": overlaps(decode(outputs), targets)[0]}

    def answers(self, outputs: tf.Tensor) -> Values:
        """Return predictions by name, as `Task.answers` does."""
        return {"box": decode(outputs)}

    def evaluate(
        self, outputs: np.ndarray, targets: np.ndarray, network: tf.keras.layers.Layer
    ) -> dict[str, float]:
        """Return scores by tag, as `Task.evaluate` does."""
        iou = overlaps(decode(tf.constant(outputs)), tf.constant(targets))[0].numpy()
        return {
            "eval/iou": float(iou.mean()),
            "eval/iou_above_half": float((iou > 0.5).mean()),
            "eval/iou_above_three_quarters": float((iou > 0.75).mean()),
        }

    def pictures(
        self, inputs: np.ndarray, outputs: np.ndarray, targets: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return images with predicted boxes in orange and true ones in blue."""
        return {
            "eval/predictions": plots.boxed(inputs, decode(tf.constant(outputs)).numpy(), targets)
        }

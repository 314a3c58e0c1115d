"""Text encoders from TensorFlow Hub, such as BERT, as a SavedModel in a local folder."""

from pathlib import Path

import tensorflow as tf

from sparring.errors import UserError
from sparring.networks.embeddings import PADDING

_INPUTS = ("input_word_ids", "input_mask", "input_type_ids")


class HubEncoder(tf.keras.layers.Layer):
    """BERT-like encoder: ids of word pieces [B, T] (0: padding) -> features of the text [B, F].

    It is called as TensorFlow Hub's BERTs are, with a mapping of `input_word_ids`, `input_mask` and
    `input_type_ids`, all int32 [B, T], and returns a mapping. A SavedModel is a program: give a
    folder that you trust. Addresses are refused, since nothing would check their content against a
    checksum; use compile=graph unless XLA can compile all of it.

    Args:
        path: the folder, with its saved_model.pb.
        output: the key of the output to use, such as "pooled_output".
        trainable: whether its weights train.
    """

    def __init__(self, path: str, output: str = "pooled_output", trainable: bool = False) -> None:
        super().__init__()
        if not (Path(path) / "saved_model.pb").is_file():
            raise UserError(
                f"model.torso.path={path}: there is no SavedModel, a folder with a saved_model.pb."
            )
        try:
            import tensorflow_hub
        except ImportError as error:
            raise UserError(
                "model=bert needs TensorFlow Hub: pip install 'sparring[text]'."
            ) from error
        try:
            self.encoder = tensorflow_hub.KerasLayer(path, trainable=trainable)
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise UserError(
                f"model.torso.path={path} cannot be loaded: {' '.join(str(error).split())}"
            ) from error
        self.output_name = output

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        ids = tf.cast(inputs, tf.int32)
        mask = tf.cast(tf.not_equal(inputs, PADDING), tf.int32)
        answers = self.encoder(dict(zip(_INPUTS, (ids, mask, tf.zeros_like(ids)), strict=True)))
        if self.output_name not in answers:
            raise UserError(
                f"model.torso.output={self.output_name}: it answers {', '.join(sorted(answers))}."
            )
        return answers[self.output_name]

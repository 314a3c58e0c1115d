"""Sequences of tokens drawn from an LSTM whose weights are random, and thereby known.

Yu et al. 2017, "SeqGAN: sequence generative adversarial nets with policy gradient", section 4.1:
as the distribution of the real sequences is known, generated ones have a likelihood.
"""

import numpy as np

from sparring.data import host_random
from sparring.data.dataset import Pairs
from sparring.data.splits import SPLITS
from sparring.errors import UserError

_STREAM = 0x5E9
_BLOCK = 4096  # sequences that are judged at once


class OracleLSTM:
    """LSTM over tokens with weights drawn from the normal distribution N(0, 1), in float64.

    The gates are in Keras' order: input, forget, cell, output. The first token is drawn after the
    embedding of a start token, which is the last row of `embedding`.

    Attributes:
        embedding: [words + 1, E].
        kernel, recurrent, bias: of the gates, [E, 4 U], [U, 4 U], [4 U].
        head, head_bias: of the logits, [U, words], [words].
    """

    embedding: np.ndarray
    kernel: np.ndarray
    recurrent: np.ndarray
    bias: np.ndarray
    head: np.ndarray
    head_bias: np.ndarray

    def __init__(self, words: int, embedding: int, units: int, seed: int) -> None:
        self.words = words
        shapes = {
            "embedding": (words + 1, embedding),
            "kernel": (embedding, 4 * units),
            "recurrent": (units, 4 * units),
            "bias": (4 * units,),
            "head": (units, words),
            "head_bias": (words,),
        }
        for number, (name, shape) in enumerate(shapes.items()):
            drawn = host_random.normal(int(np.prod(shape)), seed, _STREAM + number)
            setattr(self, name, drawn.reshape(shape))

    def _step(
        self, tokens: np.ndarray, state: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Return log probabilities [N, words] of the next tokens, and the next state."""
        hidden, cell = state
        gates = self.embedding[tokens] @ self.kernel + hidden @ self.recurrent + self.bias
        enter, forget, new, leave = np.split(gates, 4, axis=1)  # [N, U] each
        cell = _sigmoid(forget) * cell + _sigmoid(enter) * np.tanh(new)
        hidden = _sigmoid(leave) * np.tanh(cell)
        logits = hidden @ self.head + self.head_bias
        logits = logits - logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), (hidden, cell)

    def _start(self, count: int) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        zeros = np.zeros((count, len(self.recurrent)))
        return np.full(count, self.words), (zeros, zeros)

    def sample(self, count: int, length: int, *key: int) -> np.ndarray:
        """Draw sequences, int64 [count, length], from one or two integers."""
        uniforms = host_random.uniform(count * length, *key).reshape(length, count)
        tokens, state = self._start(count)
        columns = []
        for uniform in uniforms:
            log_probs, state = self._step(tokens, state)
            tokens = host_random.choices(np.exp(log_probs), uniform)
            columns.append(tokens)
        return np.stack(columns, axis=1)

    def log_likelihoods(self, sequences: np.ndarray) -> np.ndarray:
        """Compute the mean log probability of the tokens of each sequence [N, T], in nats [N]."""
        found = [np.zeros(0)]
        for first in range(0, len(sequences), _BLOCK):
            block = sequences[first : first + _BLOCK]
            tokens, state = self._start(len(block))
            total = np.zeros(len(block))
            for following in block.T:
                log_probs, state = self._step(tokens, state)
                total += np.take_along_axis(log_probs, following[:, np.newaxis], axis=1)[:, 0]
                tokens = following
            found.append(total / block.shape[1])
        return np.concatenate(found)


class Oracle(Pairs):
    """Sequences int64 [T] of tokens below `words`, drawn from an `OracleLSTM`; a `Data`.

    Args:
      seed: of the order of the batches.
      oracle_seed: of the oracle's weights and of the sequences, equal in all runs.
      words: number of different tokens.
      length: T.
      train, test: number of sequences.
      embedding, units: of the oracle.
    """

    def __init__(
        self,
        seed: int,
        oracle_seed: int = 0,
        words: int = 50,
        length: int = 10,
        train: int = 10_000,
        test: int = 5_000,
        embedding: int = 32,
        units: int = 32,
    ) -> None:
        given = {"words": words, "length": length, "train": train, "test": test}
        given |= {"embedding": embedding, "units": units}
        for name, value in given.items():
            least = 2 if name in ("words", "length") else 1
            if value < least:
                raise UserError(f"data.{name}={value}: {least} at least.")
        self.words = words
        self.oracle = OracleLSTM(words, embedding, units, oracle_seed)
        drawn = {}
        for number, (split, count) in enumerate(zip(SPLITS, (train, test), strict=True)):
            drawn[split] = self.oracle.sample(count, length, oracle_seed, _STREAM - 1 - number)
        super().__init__(drawn, {s: np.zeros(len(drawn[s]), np.int64) for s in SPLITS}, seed)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))

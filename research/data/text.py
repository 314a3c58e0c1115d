"""Text classification data: generated reviews, the user's files, and tokenisation.

Texts are tokenised on the host, once, before training: strings have no place in a compiled step.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.data import host_random
from sparring.data.dataset import Pairs
from sparring.data.preprocessing import InputSpec
from sparring.data.splits import SPLITS, split_off
from sparring.data.tabular import read_text, text_lines
from sparring.errors import UserError

# Ids of padding and of words outside the vocabulary
NOTHING = 0
UNKNOWN = 1
_PUNCTUATION = r"""[!"#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~']"""
_NOUNS = ("film", "plot", "music", "ending", "cast", "script", "camera", "story", "hero", "joke")
_VERBS = ("was", "seemed", "felt", "is", "looked")
_DEGREES = ("", "", "very", "rather", "quite")
_GOOD = ("good", "fine", "clever", "moving", "bright", "lovely", "witty", "strong")
_BAD = ("bad", "poor", "silly", "boring", "dull", "awful", "clumsy", "weak")


class Tokeniser:
    """Tokeniser by words: texts [B] -> ids int64 [B, length].

    Lower case, without punctuation, split at white space, as Keras' TextVectorization does. It
    consists of plain operations and one table, so that it can be exported with a model, to places
    without Keras.

    Args:
        words: the known words; the first has the id 2.
        length: of every text, which is cut or padded to it.
    """

    def __init__(self, words: Sequence[str], length: int) -> None:
        self.words = list(words)
        self.length = length
        ids = tf.range(UNKNOWN + 1, UNKNOWN + 1 + len(self.words), dtype=tf.int64)
        pairs = tf.lookup.KeyValueTensorInitializer(tf.constant(self.words, tf.string), ids)
        self.table = tf.lookup.StaticHashTable(pairs, UNKNOWN)

    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        plain = tf.strings.regex_replace(tf.strings.lower(texts), _PUNCTUATION, "")
        words = tf.strings.split(plain)[:, : self.length]
        return words.with_values(self.table.lookup(words.values)).to_tensor(
            NOTHING, shape=[None, self.length]
        )


class Texts(Pairs):
    """Texts as ids int64 [N, length], and their classes [N].

    The id 0 is padding, 1 a word that is not in the vocabulary. The vocabulary is the `vocabulary`
    most frequent words of the train split, as Keras' TextVectorization counts them.
    """

    def __init__(
        self,
        texts: Mapping[str, Sequence[str]],
        labels: Mapping[str, np.ndarray],
        names: Sequence[str],
        seed: int,
        vocabulary: int,
        length: int,
    ) -> None:
        if vocabulary < 3 or length < 1:
            raise UserError(
                f"data.vocabulary={vocabulary}, data.length={length}: 3 and 1 at least."
            )
        counted = tf.keras.layers.TextVectorization(vocabulary)
        counted.adapt(list(texts["train"]))
        # The first two entries are padding and the unknown word
        self.tokeniser = Tokeniser(counted.get_vocabulary()[2:], length)
        self.classes = len(names)
        self.names = tuple(names)
        known = tf.TensorSpec([length], tf.int64)
        self.raw = InputSpec(
            "text",
            tf.TensorSpec([], tf.string),
            self.tokeniser,
            None,
            resources=[self.tokeniser.table],
        )
        self.ids = InputSpec(
            "ids", known, lambda ids: tf.where((ids >= 0) & (ids < vocabulary), ids, UNKNOWN)
        )
        super().__init__(
            {s: self.tokeniser(tf.constant(list(texts[s]))).numpy() for s in SPLITS},
            {s: np.asarray(labels[s], np.int64) for s in SPLITS},
            seed,
        )

    @property
    def meaning(self) -> dict[str, Any]:
        words = "\n".join(self.tokeniser.words)
        digest = hashlib.blake2b(words.encode(), digest_size=8).hexdigest()
        return super().meaning | {"words": f"{len(self.tokeniser.words)} ({digest})"}


def reviews(
    seed: int, vocabulary: int = 100, length: int = 16, train: int = 4000, test: int = 1000
) -> Texts:
    """Return film reviews by a grammar: "the plot was not very clever but the music seemed fine".

    The last clause decides whether a review is good or bad, and "not" reverses its clause: a bag of
    words cannot tell. Both classes are equally frequent. Reviews are identical in every run; `seed`
    fixes the order of the batches.
    """
    if min(train, test) < 1:
        raise UserError(f"data.train={train}, data.test={test}: 1 at least.")
    made = {s: _reviews(n, i) for i, (s, n) in enumerate(zip(SPLITS, (train, test), strict=True))}
    texts = {s: m[0] for s, m in made.items()}
    labels = {s: m[1] for s, m in made.items()}
    return Texts(texts, labels, ("bad", "good"), seed, vocabulary, length)


def _reviews(count: int, stream: int) -> tuple[list[str], np.ndarray]:
    # Numbers of a clause: noun, verb, negation, degree, good or bad, word
    u = host_random.uniform(count * 2 * 6, 31, stream).reshape(count, 2, 6)
    texts = []
    labels = np.zeros(count, np.int64)
    for i, (first, last) in enumerate(u):
        opening, _ = _clause(first)
        closing, labels[i] = _clause(last)
        texts.append(f"{opening} but {closing}" if first[0] + last[0] < 1.5 else closing)
    return texts, labels


def _clause(u: np.ndarray) -> tuple[str, int]:
    def one(words: Sequence[str], at: float) -> str:
        return words[int(at * len(words))]

    good = bool(u[4] < 0.5)
    negated = bool(u[2] < 0.5)
    words = [
        "the",
        one(_NOUNS, u[0]),
        one(_VERBS, u[1]),
        "not" if negated else "",
        one(_DEGREES, u[3]),
    ]
    return " ".join([w for w in words if w] + [one(_GOOD if good else _BAD, u[5])]), int(
        good != negated
    )


def lines(
    path: str, seed: int, vocabulary: int = 10000, length: int = 64, test_fraction: float = 0.1
) -> Texts:
    """Return a UTF-8 text file with a line for each text: its class, a tab, the text.

    A line ends with a newline (or a carriage return and a newline) and nothing else.
    The test split is identical in every run and has its share of every class.

    Raises:
        UserError: the file is missing or not UTF-8, or a line has no tab; the message gives the
          line.
    """
    source = f"data.path={path}"
    found: list[tuple[str, str]] = []
    for number, line in enumerate(text_lines(read_text(Path(path), source)), 1):
        label, tab, text = line.partition("\t")
        if line.strip() and not (tab and label.strip() and text.strip()):
            raise UserError(f"{source}: line {number} is not a class, a tab and a text.")
        if line.strip():
            found.append((label.strip(), text))
    names = sorted({label for label, _ in found})
    if len(names) < 2:
        raise UserError(
            f"{source}: {len(names)} classes in {len(found)} texts, where two at least are needed."
        )
    labels = np.array([names.index(label) for label, _ in found])
    rows = split_off(len(found), test_fraction, source, labels)
    texts = {s: [found[i][1] for i in rows[s]] for s in SPLITS}
    return Texts(texts, {s: labels[rows[s]] for s in SPLITS}, names, seed, vocabulary, length)


def wordpieces(text: str, vocabulary: Mapping[str, int], length: int) -> np.ndarray:
    """Return a text as BERT's input: [CLS], word pieces, [SEP], then padding 0; int64 [length].

    Devlin et al. 2018. Lower case; each word is split into the longest piece of the vocabulary that
    it begins with, then the longest that continues it ("##..."), and so on; a word that cannot be
    split so is [UNK].
    """
    pieces = ["[CLS]"]
    for word in re.findall(r"\w+|[^\w\s]", text.lower()):
        pieces += _pieces(word, vocabulary)
    ids = [vocabulary[p] for p in [*pieces[: length - 1], "[SEP]"]]
    return np.pad(np.array(ids, np.int64), (0, length - len(ids)))


def _pieces(word: str, vocabulary: Mapping[str, int]) -> list[str]:
    found = []
    start = 0
    while start < len(word):
        ends = [
            e
            for e in range(len(word), start, -1)
            if ("##" if start else "") + word[start:e] in vocabulary
        ]
        if not ends:
            return ["[UNK]"]
        found.append(("##" if start else "") + word[start : ends[0]])
        start = ends[0]
    return found

"""Tasks: losses by hand, scores by hand, baselines that are what they say, boxes and their
overlap.
"""

import logging

import numpy as np
import pytest
import tensorflow as tf

from sparring.data import text
from sparring.data.dataset import Arrays, Pairs, changes
from sparring.data.splits import SPLITS, split_off
from sparring.data.synthetic_shapes import Boxes, Shapes
from sparring.data.tabular import linear, table
from sparring.errors import UserError
from sparring.supervised import forecasting, plots
from sparring.supervised.forecasting import Forecasting, sines, sunspots
from sparring.supervised.localization import Localisation, decode, overlaps
from sparring.supervised.recommendation import Interactions, Recommendation
from sparring.supervised.tasks import Classification, Regression, log_softmax

pytestmark = pytest.mark.long

THREE = Arrays(
    {s: np.zeros((6, 2), np.float32) for s in ("train", "test")},
    {s: np.arange(6) % 3 for s in ("train", "test")},
    0,
)


# ---- classification and regression ---------------------------------------------------------------


def test_cross_entropy_is_one_value_per_example():
    # softmax of (0, 0, log 2) is (1, 1, 2) / 4: -log 1/4 = 1.3863 and -log 1/2 = 0.6931
    logits = tf.constant([[0.0, 0.0, np.log(2.0)]] * 2, tf.float32)
    losses = Classification(THREE).loss(logits, tf.constant([0, 2], tf.int64))
    np.testing.assert_allclose(losses, [1.386294, 0.693147], atol=1e-6)
    # smoothed by 0.3: 0.7 * 1.386294 + 0.3 * (1.386294 + 1.386294 + 0.693147) / 3 = 1.316979
    smooth = Classification(THREE, label_smoothing=0.3).loss(logits, tf.constant([0, 2], tf.int64))
    np.testing.assert_allclose(smooth, [1.316979, 0.831777], atol=1e-6)


def test_scores_of_classes():
    outputs = np.float32([[2, 0, 0], [0, 2, 0], [2, 0, 0], [0, 0, 2]])
    found = Classification(THREE).evaluate(outputs, np.array([0, 1, 1, 2]), None)
    assert found["eval/accuracy"] == 0.75
    # right: log(e^2 + 2) - 2 = 0.239544 three times, wrong: log(e^2 + 2) = 2.239544
    assert found["eval/cross_entropy"] == pytest.approx((3 * 0.239544 + 2.239544) / 4, abs=1e-6)
    np.testing.assert_allclose(np.exp(log_softmax(outputs)).sum(axis=1), 1.0)


def test_squared_error_and_its_scores():
    data = Pairs(
        {s: np.zeros((3, 1), np.float32) for s in ("train", "test")},
        {s: np.float32([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]]) for s in ("train", "test")},
        0,
    )
    task = Regression(data)
    outputs = np.float32([[0, 0], [1, 2], [3, 2]])
    targets = np.float32([[0, 0], [1, 2], [2, 4]])
    np.testing.assert_allclose(
        task.loss(tf.constant(outputs), tf.constant(targets)), [0.0, 0.0, 2.5]
    )
    found = task.evaluate(outputs, targets, None)
    assert found["eval/rmse"] == pytest.approx((5 / 6) ** 0.5)
    # errors 1/3 and 4/3 over variances 2/3 and 8/3: one half each
    assert found["eval/r2"] == pytest.approx(0.5)


# ---- forecasting ---------------------------------------------------------------------------------


def test_baselines_are_what_they_say():
    # What follows is one more than the last value: linear in the window, not persistent
    rising = np.arange(12.0)
    windows = np.lib.stride_tricks.sliding_window_view(rising, 4)
    data = forecasting.Windows(
        dict.fromkeys(SPLITS, windows[:, :-1]),
        dict.fromkeys(SPLITS, windows[:, -1]),
        0,
        spread=10.0,
    )
    task = Forecasting(data)
    found = task.evaluate(windows[:, -1:] - 2.0, windows[:, -1:], None)
    assert found["eval/rmse_persistence"] == pytest.approx(10.0)
    assert found["eval/rmse_linear"] == pytest.approx(0.0, abs=1e-5)
    assert found["eval/rmse"] == pytest.approx(20.0)
    assert found["eval/skill"] == pytest.approx(-3.0)
    assert found["eval/skill_linear"] == pytest.approx(1.0)


def test_sines_are_sines():
    data = sines(0, train=50, test=10, window=9, noise=0.0)
    inputs, following = data.examples("train")
    assert (inputs.shape, following.shape) == ((50, 9, 1), (50, 1))
    whole = np.concatenate([inputs[..., 0], following], axis=1)
    # of a sine x[t + 1] + x[t - 1] = 2 cos(w) x[t], with one w for the whole series
    ratio = (whole[:, 2:] + whole[:, :-2]) / whole[:, 1:-1]
    middle = np.median(ratio, axis=1)
    near = np.abs(whole[:, 1:-1]) > 0.2
    assert np.abs(ratio - middle[:, None])[near].max() < 1e-3
    periods = 2 * np.pi / np.arccos(middle / 2)
    assert 8.0 <= periods.min() < periods.max() <= 40.01


def test_sunspots_are_split_in_time_and_scaled_by_the_train_years():
    pytest.importorskip("statsmodels")
    data = sunspots(0, window=10)
    (train, following), (test, targets) = data.examples("train"), data.examples("test")
    assert len(following) == 309 - 62 - 10
    assert len(targets) == 62
    np.testing.assert_array_equal(test[1, -1], targets[0])
    np.testing.assert_array_equal(test[0, -1], following[-1])
    numbers = np.concatenate([train[0, :, 0], following[:, 0]])
    assert (numbers.mean(), numbers.std()) == (
        pytest.approx(0.0, abs=1e-5),
        pytest.approx(1.0, abs=1e-5),
    )
    # Of 1700; the least 0
    assert numbers[0] * data.spread - numbers.min() * data.spread == pytest.approx(5.0, abs=1e-3)


# ---- boxes ---------------------------------------------------------------------------------------


def test_overlaps_by_hand():
    boxes = tf.constant([[0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 1, 1]], tf.float32)
    others = tf.constant([[1, 1, 3, 3], [0, 0, 1, 1], [0, 2, 1, 3]], tf.float32)
    # shared 1 of 7 covered, in a box of 9: 1/7 - 2/9; the same box; apart, 2 of 3 covered: 0 - 1/3
    iou, generalised = overlaps(boxes, others)
    np.testing.assert_allclose(iou, [1 / 7, 1.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(generalised, [1 / 7 - 2 / 9, 1.0, -1 / 3], atol=1e-6)


def test_boxes_are_never_inside_out_and_gradients_reach_those_apart():
    boxes = decode(
        tf.constant(np.random.default_rng(0).normal(size=(50, 4)) * 5, tf.float32)
    ).numpy()
    assert (boxes[:, 2:] >= boxes[:, :2]).all()
    np.testing.assert_allclose(decode(tf.zeros([1, 4])), [[0.25, 0.25, 0.75, 0.75]])
    task = Localisation(Boxes(0, train=4, test=2, size=8))
    outputs = tf.Variable([[-2.0, -2.0, -2.0, -2.0]])
    with tf.GradientTape() as tape:
        loss = task.loss(outputs, tf.constant([[0.8, 0.8, 0.9, 0.9]]))
    assert np.abs(tape.gradient(loss, outputs)).min() > 1e-3


def test_the_loss_of_a_box_by_hand():
    # sizes and centres of 0: [.25, .25, .75, .75] against [.25, .25, .75, 1.25]: distance 0.5;
    # shared 1/4, covered 1/2, which is the box around both: 5 * 0.5 + 2 * (1 - 0.5) = 3.5
    task = Localisation(Boxes(0, train=4, test=2, size=8))
    loss = task.loss(tf.zeros([1, 4]), tf.constant([[0.25, 0.25, 0.75, 1.25]]))
    np.testing.assert_allclose(loss, [3.5], atol=1e-6)


def test_boxes_belong_to_the_images_of_shapes():
    boxes = Boxes(0, train=8, test=4, size=16)
    shapes = Shapes(0, train=8, test=4, size=16)
    np.testing.assert_array_equal(boxes.examples("test")[0], shapes.examples("test")[0])
    np.testing.assert_array_equal(boxes.examples("test", 3)[1], shapes.boxes("test", 3))
    with pytest.raises(
        UserError, match=r"task=localisation: this data is not for it\. There are: data=boxes"
    ):
        Localisation(shapes)


# ---- recommendation ------------------------------------------------------------------------------


def test_interactions_are_drawn_by_the_truth():
    data = Interactions(0, users=4, items=12, train=40_000, test=10)
    users, items = data.examples("train")
    np.testing.assert_allclose(data.truth.sum(axis=1), 1.0)
    assert set(users) == {0, 1, 2, 3}
    for user in range(4):
        share = np.bincount(items[users == user], minlength=12) / (users == user).sum()
        assert np.abs(share - data.truth[user]).max() < 0.02


def test_recommending_by_the_truth_is_the_optimum_and_nothing_beats_it():
    data = Interactions(0, users=5, items=30, train=100, test=10)
    task = Recommendation(data)

    def told(scores):
        return task.evaluate(
            np.zeros((10, 30)), data.examples("test")[1], lambda users, training: scores
        )

    best = told(data.truth)
    assert best["eval/hit_rate"] == best["eval/hit_rate_optimum"]
    assert best["eval/share_of_optimum"] == pytest.approx(1.0)
    expected = np.sort(data.truth, axis=1)[:, -10:].sum(axis=1).mean()
    assert best["eval/hit_rate_optimum"] == pytest.approx(expected)
    assert (
        told(-data.truth)["eval/hit_rate"]
        < best["eval/hit_rate_popularity"]
        < best["eval/hit_rate_optimum"]
    )
    assert best["eval/cross_entropy"] == pytest.approx(np.log(30))


# ---- text and tables -----------------------------------------------------------------------------


def test_a_review_is_as_good_as_its_last_clause():
    texts, labels = text._reviews(300, 0)
    for said, label in zip(texts, labels, strict=True):
        words = said.rpartition(" but ")[2].split()
        assert label == ((words[-1] in text._GOOD) != ("not" in words))
    assert 0.4 < labels.mean() < 0.6
    assert sum(" but " in t for t in texts) > 200


def test_texts_become_ids(tmp_path):
    path = tmp_path / "mine.tsv"
    path.write_text("\n".join(["good\tA fine, fine film!", "bad\tdull film"] * 10))
    data = text.lines(str(path), 0, vocabulary=5, length=4, test_fraction=0.2)
    ids, labels = data.examples("train")
    assert (ids.shape, data.names, data.count) == ((16, 4), ("bad", "good"), 16)
    assert set(labels) == {0, 1}
    vocabulary = ["", "[UNK]", *data.tokeniser.words]
    words = [vocabulary[i] for i in ids[labels == 1][0]]
    assert words == [
        "[UNK]",
        "fine",
        "fine",
        "film",
    ]  # five words are kept: nothing, unknown, film, fine, one more
    np.testing.assert_array_equal(ids[labels == 0][0][2:], 0)


def test_ids_are_those_of_keras():
    texts = [
        'The plot -- was it "fine"?',
        "",
        "x",
        "don't [stop] THE_plot\\now\tfine\n plot",
        "ÄÖ fine £ plot plot plot",
    ]
    keras = tf.keras.layers.TextVectorization(8, output_sequence_length=6)
    keras.adapt(["the plot was fine", "dont stop the plot", "äö fine"])
    ours = text.Tokeniser(keras.get_vocabulary()[2:], 6)
    np.testing.assert_array_equal(ours(tf.constant(texts)), keras(tf.constant(texts)))
    assert ours(tf.constant(texts)).dtype == tf.int64


def test_word_pieces_are_the_longest_that_are_there():
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "un",
        "##aff",
        "##able",
        "##a",
        "the",
        ",",
        "##ffable",
    ]
    vocabulary = {w: i for i, w in enumerate(words)}
    # unaffable: "un", then of "affable" the longest piece is "##aff", then "##able"
    assert text.wordpieces("The, unaffable xyz", vocabulary, 9).tolist() == [
        2,
        8,
        9,
        4,
        5,
        6,
        1,
        3,
        0,
    ]
    assert text.wordpieces("the the the", vocabulary, 4).tolist() == [2, 8, 8, 3]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"good\tfine\nbad\tna\xefve\n", "is not UTF-8: line 2 holds the byte 0xef.*iconv"),
        (b"good\tfine\nno label here\n", "line 2 is not a class, a tab and a text"),
        (b"good\tfine\ngood\tfiner\n", "1 classes in 2 texts, where two at least"),
        (None, "there is no such file"),
    ],
)
def test_texts_that_cannot_be_read(tmp_path, content, said):
    path = tmp_path / "mine.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        text.lines(str(path), 0)
    assert "\n" not in str(caught.value)


def test_a_table_is_scaled_by_its_train_rows(tmp_path):
    rows = np.random.default_rng(0).normal(5.0, 3.0, size=(50, 3))
    path = tmp_path / "mine.csv"
    path.write_text("a,price,b\n" + "\n".join(",".join(map(str, r)) for r in rows))
    data = table(str(path), ["price"], 0, test_fraction=0.2)
    inputs, targets = data.examples("train")
    assert (inputs.shape, targets.shape) == ((40, 2), (40, 1))
    for column in (*inputs.T, targets[:, 0]):
        assert (column.mean(), column.std()) == (
            pytest.approx(0.0, abs=1e-5),
            pytest.approx(1.0, abs=1e-5),
        )


def _rows(rows: np.ndarray, path):
    path.write_text("a,flag,price\n" + "\n".join(",".join(map(repr, r)) for r in rows.tolist()))
    return table(str(path), ["price"], 0, test_fraction=0.2)


@pytest.mark.parametrize("constant", [0.0, 0.1, -7e6])
def test_a_constant_column_is_shifted_alone(tmp_path, constant):
    rows = np.random.default_rng(0).normal(5.0, 3.0, size=(50, 3))
    rows[:, 1] = constant
    held_out = split_off(50, 0.2, "")["test"]
    rows[held_out[3], 1] = constant + 2.0  # as no row of the train split
    data = _rows(rows, tmp_path / "mine.csv")
    assert (data.examples("train")[0][:, 1] == 0.0).all()
    shifted = data.examples("test")[0][:, 1]
    np.testing.assert_allclose(shifted, [0.0] * 3 + [2.0] + [0.0] * 6, atol=1e-6)


def test_a_constant_target_has_nothing_to_be_explained(tmp_path):
    rows = np.random.default_rng(0).normal(size=(50, 3))
    rows[:, 2] = 0.1
    task = Regression(_rows(rows, tmp_path / "mine.csv"))
    found = task.evaluate(np.full((10, 1), 0.5), np.zeros((10, 1)), None)
    assert found == {"eval/rmse": 0.5, "eval/r2": 0.0}


def test_a_table_is_scaled_for_training_as_for_serving(tmp_path, caplog):
    # dates in seconds: in float32 they are multiples of 128, the standard deviation is about 300
    rows = np.random.default_rng(0).normal(size=(50, 3))
    rows[:, 0] = 1.7e9 + 300.0 * rows[:, 0]
    with caplog.at_level(logging.WARNING, "sparring"):
        data = _rows(rows, tmp_path / "mine.csv")
    trained = data.examples("train")[0]
    served = rows[split_off(50, 0.2, "")["train"], :2].astype(np.float32)
    np.testing.assert_allclose(data.raw.prepare(tf.constant(served)), trained, rtol=1e-6)
    assert trained[:, 0].std() == pytest.approx(1.0, rel=1e-5)
    (said,) = caplog.messages
    assert "column a has values around 1.7e+09" in said


def test_a_line_ends_with_a_newline_and_with_nothing_else(tmp_path):
    path = tmp_path / "mine.tsv"
    odd = ("\u2028", "\u2029", "\u0085", "\x0c", "\x0b", "\x1c")
    rows = [f"{('bad', 'good')[i % 2]}\tfine{odd[i % 6]}day" for i in range(12)]
    path.write_bytes("\r\n".join(rows).encode())
    data = text.lines(str(path), 0, test_fraction=0.25)
    assert (data.count, len(data.examples("test")[1])) == (9, 3)
    assert data.names == ("bad", "good")


def test_a_cell_of_a_table_may_hold_what_looks_like_an_end_of_line(tmp_path):
    path = tmp_path / "mine.csv"
    head = 'a\u2028b,"two\nlines",c\x0c'
    path.write_bytes(f"{head}\r\n1,2,3\r\n4,5,6\r\n7,8,x\r\n".encode())
    with pytest.raises(UserError, match="line 5, column c\x0c: 'x' is no finite number"):
        table(str(path), ["a\u2028b"], 0, test_fraction=0.5)
    path.write_bytes(f"{head}\r\n1,2,3\r\n4,5,6\r\n".encode())
    data = table(str(path), ["a\u2028b"], 0, test_fraction=0.5)
    assert data.columns == (["two\nlines", "c\x0c"], ["a\u2028b"])


def test_columns_and_words_that_have_moved_are_refused(tmp_path):
    rows = np.random.default_rng(0).normal(size=(50, 3))
    data = _rows(rows, tmp_path / "mine.csv")
    content = (tmp_path / "mine.csv").read_text().replace("a,flag", "flag,a")
    (tmp_path / "mine.csv").write_text(content)
    moved = table(str(tmp_path / "mine.csv"), ["price"], 0, test_fraction=0.2)
    with pytest.raises(UserError, match="its columns are flag, a, and the run began with a, flag"):
        changes(data.fingerprint, moved)
    words = [_texts(("one", "two")), _texts(("two", "one"))]
    with pytest.raises(UserError, match=r"its words are 3 \(.*\), and the run began with 3 \("):
        changes(words[0].fingerprint, words[1])


def _texts(words: tuple[str, str]) -> text.Texts:
    """Return texts in which the first of the words is more frequent than the second."""
    texts = [f"{words[0]} {words[0]} {words[1]} three"] * 4
    labels = {s: np.arange(4) % 2 for s in SPLITS}
    return text.Texts(dict.fromkeys(SPLITS, texts), labels, ("a", "b"), 0, 10, 4)


@pytest.mark.parametrize(
    ("content", "targets", "said"),
    [
        ("a,b\n1,2\n3,4\n5,x\n", ["b"], "line 4, column b: 'x' is no finite number"),
        ("a,b\n1,2\n3,4\n5\n", ["b"], "line 4 has 1 cells, the head 2"),
        ("a,b\n1,2\n3,4\n5,6\n", ["c"], r"data.targets=\['c'\]: choose among its columns, a, b"),
        ("a,b\n1,2\n3,4\n5,6\n", ["a", "b"], "all of its columns"),
        ("a,b\n", ["a"], "a head and two rows"),
        ("a,b\n1,inf\n3,4\n5,6\n", ["a"], "line 2, column b: 'inf' is no finite number"),
        ("a,b\n1,1e39\n3,4\n5,6\n", ["a"], "'1e39' is no finite number of float32"),
        ("a,b\n1," + "9" * 200_000 + "\n", ["a"], "line 2 is no row of a table: field larger"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, content, targets, said):
    path = tmp_path / "mine.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=said):
        table(str(path), targets, 0)


def test_a_linear_table_is_linear_but_for_its_noise():
    inputs, targets = linear(0, train=2000, test=10, features=4, noise=0.3).examples("train")
    flat = np.concatenate([inputs, np.ones((2000, 1))], axis=1).astype(np.float64)
    rest = targets - flat @ np.linalg.lstsq(flat, targets, rcond=None)[0]
    assert rest.std() == pytest.approx(0.3, rel=0.05)
    assert (inputs.mean(), inputs.std()) == (
        pytest.approx(0.0, abs=0.05),
        pytest.approx(1.0, abs=0.05),
    )


# ---- pictures ------------------------------------------------------------------------------------


def test_a_confusion_matrix_is_darkest_where_most_are():
    picture = plots.confusion(np.array([0, 0, 1, 0]), np.array([0, 0, 1, 1]), ["a", "b"])[0]
    left = 1 * 6 + 8

    def shade(row, column):
        return int(picture[row * 36 + 30, left + column * 36 + 30].astype(int).sum())

    assert shade(0, 0) < shade(1, 0) == shade(1, 1) < shade(0, 1)


def test_boxes_are_drawn_where_they_are():
    images = np.zeros((1, 10, 10, 1), np.float32)
    picture = plots.boxed(
        images, np.float32([[0.5, 0.5, 1.0, 1.0]]), np.float32([[0.0, 0.0, 0.5, 0.5]])
    )[0]
    blue, orange = (
        (picture[:120, :120] == colour).all(axis=-1) for colour in (plots._BLUE, plots._ORANGE)
    )
    assert np.argwhere(blue).max() <= 62 <= np.argwhere(orange).max() <= 118
    assert np.argwhere(blue).min() == 0
    assert np.argwhere(orange).min() >= 57

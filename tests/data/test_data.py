"""Data: every example once an epoch, a batch by its position alone, the same numbers however
compiled.
"""

import logging
import re

import numpy as np
import pytest
import tensorflow as tf
from omegaconf import OmegaConf

from sparring.cli import setup
from sparring.config import targets
from sparring.config.composer import CONF, Composer
from sparring.data import arrays as data_arrays
from sparring.data import dataset, pixel_values, splits, synthetic_shapes
from sparring.data.dataset import Arrays, Order, check
from sparring.errors import UserError
from sparring.gans.data import mixtures
from sparring.gans.data.stacked_digits import StackedDigits
from sparring.xla import random

GREY = np.arange(5 * 4, dtype=np.uint8).reshape(5, 2, 2, 1)


def arrays(images=GREY, labels=None, seed=0, **more):
    return Arrays(
        {"train": images, "test": GREY},
        None if labels is None else {"train": labels, "test": labels},
        seed,
        **more,
    )


# ---- order ---------------------------------------------------------------------------------------


def test_every_example_comes_once_an_epoch_and_batches_run_on_across_its_end():
    # 60 numbers: six epochs of ten, the border within a batch
    rows = Order(10, seed=3).plan(0, 15, 4)
    assert rows.shape == (15, 4)
    assert rows.dtype == np.int64
    epochs = rows.reshape(6, 10)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(10), (6, 1)))
    assert len({tuple(e) for e in epochs}) == 6  # each in an order of its own


def test_a_batch_is_a_function_of_seed_and_position():
    whole = Order(10, seed=3).plan(0, 40, 3)
    for first, steps in ((0, 1), (7, 5), (39, 1), (3, 37), (12, 0)):
        np.testing.assert_array_equal(
            Order(10, seed=3).plan(first, steps, 3), whole[first : first + steps]
        )
    used = Order(10, seed=3)
    used.plan(30, 10, 3)
    np.testing.assert_array_equal(used.plan(2, 3, 3), whole[2:5])  # going back is no matter
    assert (Order(10, seed=4).plan(0, 40, 3) != whole).any()


def test_the_order_is_the_same_in_every_version_of_numpy():
    # argsort of the first words of Philox4x64-10 under the key (3, 1), as numpy 1.26 and 2.3 give
    # them: 13652367922584412156 15649216603714737163 15004226688420960171 2618719934470416154
    # 6495888769752286334
    assert splits.permutation(5, seed=3, epoch=1).tolist() == [3, 4, 0, 2, 1]


def test_a_batch_may_be_larger_than_an_epoch():
    assert np.bincount(Order(3, seed=0).plan(0, 1, 7)[0]).tolist() in (
        [3, 2, 2],
        [2, 3, 2],
        [2, 2, 3],
    )


# ---- arrays --------------------------------------------------------------------------------------


def test_bytes_are_scaled_to_minus_one_and_one():
    images = np.array([0, 127, 128, 255], np.uint8).reshape(2, 2, 1, 1)
    data = Arrays({"train": images, "test": images}, None, seed=0)
    found, labels = data.take(tf.constant([1, 0, 1], tf.int64), tf.zeros([3, 2], tf.uint32))
    # 127 / 127.5 - 1 = -1 / 255
    np.testing.assert_allclose(
        found.numpy().ravel(), [1 / 255, 1, -1, -1 / 255, 1 / 255, 1], atol=1e-6
    )
    assert labels.numpy().tolist() == [0, 0, 0]
    np.testing.assert_array_equal(found.numpy()[:2], data.examples("train")[0][[1, 0]])
    np.testing.assert_array_equal(pixel_values.pixels(data.examples("train")[0]), images)


def test_every_byte_survives_the_way_to_the_device_and_back():
    every = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
    data = Arrays({"train": every, "test": every}, None, seed=0)
    found = data.take(tf.range(256, dtype=tf.int64), tf.zeros([256, 2], tf.uint32))[0].numpy()
    np.testing.assert_array_equal(pixel_values.pixels(found), every)


def test_a_limit_takes_the_same_random_ones_and_labels_stay_with_them():
    images = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1)
    data = Arrays(
        {"train": images, "test": images}, {"train": np.arange(100), "test": np.arange(100)}, seed=1
    )
    examples, labels = data.examples("train", 10)
    other = Arrays(
        {"train": images, "test": images}, {"train": np.arange(100), "test": np.arange(100)}, seed=2
    )
    np.testing.assert_array_equal(pixel_values.pixels(examples).ravel(), labels)
    np.testing.assert_array_equal(other.examples("train", 10)[1], labels)
    assert labels.tolist() != list(range(10))
    assert len(data.examples("train", 1000)[1]) == 100


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (GREY[:0], None, "data: train split is empty."),
        (GREY[..., 0], None, "is uint8 [5, 2, 2]"),
        (np.tile(GREY, 2), None, "has images of 2 channels"),
        (GREY.astype(np.float32), None, "has values from 0 to 19"),
        (
            np.where(GREY == 9, np.nan, 0.5),
            None,
            "1 of 5 examples hold NaN or infinity, first number 2",
        ),
        (GREY.astype(np.int64), None, "is int64 [5, 2, 2, 1]"),
        (
            GREY,
            np.arange(4),
            "labels are int64 [4], though one whole number is needed for each of 5 examples",
        ),
        (GREY, np.arange(5) / 2, "labels are float64 [5]"),
        (GREY, np.array(list("abcde")), "labels are <U1 [5]"),
        (GREY, np.arange(5) - 1, "labels run from -1 to 3"),
        (
            np.zeros((5, 3, 3, 1), np.uint8),
            None,
            "the train split's examples are (3, 3, 1), the test split's (2, 2, 1)",
        ),
    ],
)
def test_what_cannot_be_learned_from_is_one_line(images, labels, said):
    with pytest.raises(UserError, match=re.escape(said)) as error:
        arrays(images, labels)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        ([1, 2, 3, 4, 1], [0, 1, 2, 3, 0], "1 2 3 4"),  # as in MATLAB
        ([0, 5, 10**12, 5, 0], [0, 1, 2, 1, 0], f"0 5 {10**12}"),
        ([7, 7, 7, 7, 7], [0] * 5, "7"),
    ],
)
def test_labels_with_gaps_are_numbered_without_an_empty_class(labels, numbers, names, caplog):
    with caplog.at_level(logging.WARNING, "sparring"):
        data = arrays(labels=np.array(labels))
    assert data.examples("train")[1].tolist() == numbers
    assert (data.classes, data.names) == (len(names.split()), tuple(names.split()))
    assert f"labels, which run from {min(labels)} to {max(labels)}" in caplog.text


def test_labels_without_gaps_are_as_they_are_and_need_no_word(caplog):
    with caplog.at_level(logging.WARNING, "sparring"):
        data = arrays(labels=np.array([2, 0, 1, 1, 0]))
    assert data.examples("train")[1].tolist() == [2, 0, 1, 1, 0]
    assert caplog.messages == []


def test_data_that_has_changed_is_noticed_or_refused():
    labels = np.arange(5) % 2
    data = arrays(labels=labels, names=("bee", "cat"))
    before = dataset.fingerprint(data)
    assert dataset.changes(before, arrays(labels=labels, names=("bee", "cat"))) == []
    other = arrays(labels=1 - labels, names=("bee", "cat"))  # the same classes and counts
    (said,) = dataset.changes(before, other)
    assert "train split" in said
    moved = arrays(labels=labels, names=("ant", "bee"))
    with pytest.raises(
        UserError, match="its classes are ant, bee, and the run began with bee, cat"
    ):
        dataset.changes(before, moved)
    # a model that looks at no labels can go on
    assert len(dataset.changes(before, moved, labelled=False)) == 1
    # runs from before there were fingerprints, and data that is drawn
    assert dataset.changes({}, moved) == dataset.changes(before, mixtures.ring()) == []


def test_labels_beyond_the_named_classes_are_refused():
    with pytest.raises(
        UserError, match="labels run from 0 to 4, though there are 3 classes, 0 to 2"
    ):
        arrays(labels=np.arange(5), names=("a", "b", "c"))


def test_a_batch_must_be_filled_and_a_conditional_model_have_labels():
    check(arrays(), 5)
    check(mixtures.ring(), 10**6, labelled=True)  # endless
    with pytest.raises(
        UserError, match=r"5 training examples do not fill a batch of 6: lower trainer\.batch_size"
    ):
        check(arrays(), 6)
    check(arrays(labels=np.arange(5)), 5, labelled=True)
    with pytest.raises(UserError, match="no labels, which a conditional model needs"):
        check(arrays(), 5, labelled=True)


def test_an_unknown_split_is_named():
    for data in (arrays(), mixtures.ring()):
        with pytest.raises(UserError, match="split=valid: there are train and test"):
            data.examples("valid")


# ---- built-in sets -------------------------------------------------------------------------------


def test_a_split_has_its_share_of_every_class():
    labels = np.repeat([0, 1, 2], [100, 40, 7])
    rows = splits.split_off(147, 0.25, "data", labels)
    assert np.bincount(labels[rows["test"]]).tolist() in ([25, 10, 2], [25, 11, 1], [26, 10, 1])
    assert sorted([*rows["train"], *rows["test"]]) == list(range(147))
    plain = splits.split_off(147, 0.25, "data")
    assert (len(plain["test"]), len(plain["train"])) == (37, 110)
    assert len(set(np.diff(plain["test"]))) > 5  # no regular steps


def test_digits_are_split_in_the_same_way_always():
    one = data_arrays.digits(seed=1)
    other = data_arrays.digits(seed=2)
    assert (one.shape, one.classes, one.count) == ((8, 8, 1), 10, 1438)  # 1797 less a fifth
    assert len(one.examples("test")[1]) == 359
    np.testing.assert_array_equal(one.examples("test")[0], other.examples("test")[0])
    images = np.concatenate([one.examples(s)[0] for s in ("train", "test")])
    assert (images.min(), images.max(), images.dtype) == (-1.0, 1.0, np.float32)
    assert (one.plan(0, 3, 8) != other.plan(0, 3, 8)).any()
    from sklearn.datasets import load_digits

    assert sorted(map(bytes, (images + 1) * 8)) == sorted(
        map(bytes, load_digits().images[..., None].astype(np.float32))
    )


@pytest.mark.parametrize(("make", "modes"), [(mixtures.ring, 8), (mixtures.grid, 25)])
def test_a_mixtures_moments_mode_by_mode(make, modes):
    data = make()
    examples, labels = data.examples("train", 50_000)
    assert (data.shape, data.classes, data.count) == ((2,), modes, 0)
    counts = np.bincount(labels, minlength=modes)
    assert abs(counts - 50_000 / modes).max() < 5 * np.sqrt(50_000 / modes)
    for mode in range(modes):
        off = (examples[labels == mode] - data.centers[mode]) / data.sigma
        assert abs(off.mean(axis=0)).max() < 5 / np.sqrt(counts[mode])
        assert abs(off.std(axis=0) - 1).max() < 5 / np.sqrt(2 * counts[mode])


def test_the_centers_of_ring_and_grid():
    np.testing.assert_allclose(
        mixtures.ring().centers[[0, 2, 3]], [[1, 0], [0, 1], [-(0.5**0.5), 0.5**0.5]], atol=1e-6
    )
    expected = {(x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)}
    assert {tuple(c) for c in mixtures.grid().centers.tolist()} == expected
    assert (mixtures.ring().sigma, mixtures.grid().sigma) == (0.01, 0.05)


def test_a_mixture_draws_from_keys_and_train_differs_from_test():
    data = mixtures.grid()
    keys = random.members(random.stream(0, "batch"), 64)
    rows = tf.constant(data.plan(2, 1, 64)[0])
    assert rows.numpy().tolist() == list(range(128, 192))
    whole = data.take(rows, keys)[0].numpy()
    part = data.take(rows[10:20], keys[10:20])[0].numpy()
    np.testing.assert_array_equal(part, whole[10:20])  # an example depends on its own key
    assert len(np.unique(whole, axis=0)) == 64
    assert (data.examples("train", 10)[0] != data.examples("test", 10)[0]).all()


def test_stacked_digits_are_three_digits_and_their_number():
    data = StackedDigits(seed=0, train=500, test=100)
    digits, kinds = data.digits.examples("train")
    known = {image.tobytes(): kind for image, kind in zip(digits[..., 0], kinds, strict=True)}
    images, labels = data.take(tf.range(500, dtype=tf.int64), tf.zeros([500, 2], tf.uint32))
    assert images.shape == (500, *data.shape)
    for image, label in zip(images.numpy(), labels.numpy(), strict=True):
        r, g, b = (known[np.ascontiguousarray(image[..., c]).tobytes()] for c in range(3))
        assert label == 100 * r + 10 * g + b
    host, host_labels = data.examples("train")
    np.testing.assert_array_equal(host, images)
    np.testing.assert_array_equal(host_labels, labels)
    test = {
        np.ascontiguousarray(i).tobytes()
        for i in np.moveaxis(data.examples("test")[0], -1, 1).reshape(-1, 8, 8)
    }
    assert not test & known.keys()  # made of other digits
    assert data.examples("train", 7)[0].shape == (7, 8, 8, 3)


# ---- shapes --------------------------------------------------------------------------------------

# Whether each shape holds the points (x, y) * extent from its centre, y pointing down: worked out
# by hand.
POINTS = {
    (0.0, 0.0): {"circle", "square", "triangle", "cross"},
    (-0.65, 0.65): {"circle", "square", "triangle"},  # 0.92 from the centre
    (0.65, -0.65): {"square", "circle"},
    (0.8, 0.8): {"square", "triangle"},  # 1.13 from the centre; the triangle reaches to 0.9 there
    (0.2, -0.8): {"circle", "square", "cross"},  # the triangle reaches to 0.1 there
}


def test_shapes_labels_colours_and_boxes_are_what_the_pixels_show():
    data = synthetic_shapes.Shapes(seed=0, train=300, test=50, size=128)
    images, labels = data.examples("train")
    bytes_ = pixel_values.pixels(images)
    boxes = data.boxes("train") * 128
    assert (data.classes, data.shape, len(data.names)) == (24, (128, 128, 3), 24)
    for image, label, (top, left, bottom, right) in zip(bytes_, labels, boxes, strict=True):
        colour, shape = data.names[label].split()
        paint = np.array(synthetic_shapes.COLOURS[colour])
        ground = image[0, 0]
        x = (left + right) / 2
        y = (top + bottom) / 2
        r = (bottom - top) / 2
        for (dx, dy), inside in POINTS.items():
            pixel = image[int(y + dy * r), int(x + dx * r)]
            np.testing.assert_array_equal(
                pixel, paint if shape in inside else ground, f"{shape} at {dx}, {dy}"
            )
        rows, columns = np.nonzero((image != ground).any(axis=-1))
        drawn = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])
        # What is drawn fills its box; edges fade
        assert abs(drawn - (top, left, bottom, right)).max() <= 1.5


def test_shapes_are_even_independent_and_always_the_same():
    data = synthetic_shapes.Shapes(seed=0, train=6000, test=500)
    labels = data.examples("train")[1]
    assert abs(np.bincount(labels, minlength=24) - 250).max() < 5 * np.sqrt(250)
    other = synthetic_shapes.Shapes(seed=9, train=6000, test=500)
    np.testing.assert_array_equal(data.examples("train", 50)[0], other.examples("train", 50)[0])
    assert (data.examples("train", 50)[0] != data.examples("test", 50)[0]).any()
    boxes = data.boxes("train")
    assert (boxes.min() >= 0.0, boxes.max() <= 1.0, boxes.dtype) == (True, True, np.float32)
    np.testing.assert_array_equal(data.boxes("train", 50), boxes[data.rows("train", 50)])


# ---- compiled ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [mixtures.grid, lambda: data_arrays.digits(0), lambda: StackedDigits(0, 200, 10)]
)
def test_graph_and_xla_take_the_same_examples(make):
    data = make()
    rows = tf.constant(data.plan(0, 1, 64)[0])
    keys = random.members(random.stream(1, "batch"), 64)
    eager = data.take(rows, keys)
    for jit in (False, True):
        examples, labels = tf.function(make().take, jit_compile=jit, autograph=False)(rows, keys)
        np.testing.assert_allclose(examples, eager[0], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(labels, eager[1])
        assert (examples.shape, examples.dtype, labels.dtype) == (
            (64, *data.shape),
            tf.float32,
            tf.int64,
        )


# ---- conf/data -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(p.stem for p in (CONF / "data").glob("*.yaml")))
def test_every_config_builds_what_it_names(name, tmp_path):
    from PIL import Image

    for i in range(10):
        Image.fromarray(np.full((4, 4), i, np.uint8)).save(tmp_path / f"{i}.png")
    setup.prepare()
    (tmp_path / "mine.tsv").write_text("good\tfine\nbad\tdull\n" * 20)
    (tmp_path / "mine.csv").write_text("x,y\n" + "".join(f"{i},{i % 7}\n" for i in range(40)))
    np.savez(tmp_path / "mine.npz", images=np.arange(40 * 4, dtype=np.uint8).reshape(40, 2, 2))
    paths = {"npz": [f"data.path={tmp_path / 'mine.npz'}"], "folder": [f"data.path={tmp_path}"]}
    paths |= {"text": [f"data.path={tmp_path / 'mine.tsv'}"]}
    paths |= {"table": [f"data.path={tmp_path / 'mine.csv'}", "data.targets=[y]"]}
    primary = (
        "supervised"
        if "`sparring supervised`" in (CONF / "data" / f"{name}.yaml").read_text()
        else "gan"
    )
    cfg = Composer(primary).compose([f"data={name}", "seed=5", *paths.get(name, [])])
    plain = {"data": OmegaConf.to_container(cfg.data, resolve=True)}
    targets.check(plain, [])
    targets.check_arguments(plain)
    data = targets.instantiate(cfg.data)
    check(data, 8)
    examples, labels = data.take(
        tf.constant(data.plan(3, 1, 8)[0]), random.members(random.stream(0, "x"), 8)
    )
    assert examples.shape == (8, *data.shape)
    assert labels.shape == (8, *data.examples("train", 5)[1].shape[1:])
    assert data.examples("test", 5)[0].shape[1:] == data.shape

"""Backbones: where weights come from, how images reach them, what is frozen, and what
runs no code.
"""

import hashlib
import logging
import re
import sys
import urllib.request
from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from sparring.data.dataset import Arrays
from sparring.errors import UserError
from sparring.networks import pretrained_weights
from sparring.networks.embeddings import PADDING
from sparring.networks.pretrained import Pretrained, application
from sparring.networks.tf_hub import HubEncoder
from sparring.optim.fine_tuning import Stage
from sparring.optim.optimizer import Scheduled
from sparring.supervised.models import Headed
from sparring.supervised.tasks import Classification
from sparring.supervised.trainer import SupervisedTrainer

pytestmark = pytest.mark.long

SMALL = {"settings": {"alpha": 0.35}}  # of MobileNetV2
IMAGES = np.random.default_rng(0).integers(0, 256, size=(2, 32, 32, 3)).astype(np.uint8)


def toy(include_top=False, weights=None, input_shape=None, pooling="avg"):
    """A backbone of two convolutions and a normalisation, called as Keras' are."""
    inputs = tf.keras.Input(input_shape)
    x = tf.keras.layers.Conv2D(4, 3, name="first")(inputs)
    x = tf.keras.layers.BatchNormalization(name="norm")(x)
    x = tf.keras.layers.Conv2D(6, 3, activation="relu", name="second")(x)
    return tf.keras.Model(inputs, tf.keras.layers.GlobalAveragePooling2D()(x))


@pytest.fixture
def small(monkeypatch):
    """A backbone named Toy in tf.keras.applications, which prepares images as VGG does."""
    toy.__module__ = tf.keras.applications.VGG16.__module__
    monkeypatch.setattr(tf.keras.applications, "Toy", toy, raising=False)
    return partial(Pretrained, backbone="Toy")


# ---- preparation ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "VGG16",
            lambda x: x[..., ::-1] - [103.939, 116.779, 123.68],
        ),  # blue first, less ImageNet's means
        ("ResNet50", lambda x: x[..., ::-1] - [103.939, 116.779, 123.68]),
        ("ResNet50V2", lambda x: x / 127.5 - 1.0),
        ("InceptionV3", lambda x: x / 127.5 - 1.0),
        ("MobileNetV2", lambda x: x / 127.5 - 1.0),
        ("EfficientNetB0", lambda x: x),  # its own first layers do it
    ],
)
def test_each_backbone_gets_images_as_it_was_trained(name, expected):
    _, prepare = application(name)
    images = IMAGES.astype(np.float32)
    np.testing.assert_allclose(prepare(tf.constant(images)), expected(images), atol=1e-3)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0)])
def test_images_reach_the_backbone_in_its_own_range(small, low, high):
    encoder = small(weights=None, low=low, high=high)
    scaled = tf.constant(IMAGES, tf.float32) / 255.0 * (high - low) + low
    found = encoder(scaled)
    prepared = application("VGG16")[1](tf.constant(IMAGES, tf.float32))
    np.testing.assert_allclose(found, encoder.network(prepared), atol=1e-3)


def test_grey_images_are_three_equal_colours_and_small_ones_are_enlarged(small):
    encoder = small(weights=None, size=[16, 12])
    assert encoder(tf.zeros([2, 8, 8, 1])).shape == (2, 6)
    assert encoder.network.input_shape == (None, 16, 12, 3)


def test_a_real_backbone_gives_features():
    encoder = Pretrained("MobileNetV2", None, units=[5], **SMALL)
    assert encoder(tf.zeros([2, 32, 32, 3])).shape == (2, 5)


@pytest.mark.parametrize(
    ("settings", "shape", "said"),
    [
        (
            {"backbone": "InceptionV3"},
            (32, 32, 3),
            "^backbone=InceptionV3: Input size must be at least 75x75",
        ),
        ({"backbone": "VGG16"}, (16, 16, 3), "^backbone=VGG16: Input size must be at least 32x32"),
        (
            {"backbone": "VGG61"},
            (32, 32, 3),
            "backbone=VGG61: there is none of that name. There are: .*VGG16",
        ),
        (
            {"backbone": "VGG16"},
            (32, 32, 4),
            "these images have 4 channels: drop the alpha channel",
        ),
        ({"backbone": "VGG16"}, (7,), r"looks at images \[H, W, C\], and an input here is \[7\]"),
    ],
)
def test_what_a_backbone_cannot_look_at_is_one_line(settings, shape, said):
    with pytest.raises(UserError, match=said) as caught:
        Headed(3, partial(Pretrained, weights=None, **settings))(tf.zeros([2, *shape]))
    assert "\n" not in str(caught.value)  # though it comes out of a layer in a layer


# ---- weights -------------------------------------------------------------------------------------


def saved(tmp_path, whole=False, name="toy.h5"):
    model = toy(input_shape=(32, 32, 3))
    path = tmp_path / name
    model.save(path, save_format="h5") if whole else model.save_weights(path)
    return model, path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")
@pytest.mark.parametrize("whole", [False, True])
def test_weights_come_from_a_file_with_a_checksum(small, tmp_path, whole):
    model, path, digest = saved(tmp_path, whole)
    encoder = small(weights=str(path), sha256=digest)
    encoder(tf.zeros([1, 32, 32, 3]))
    for ours, theirs in zip(encoder.network.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A home of one's own, where Keras keeps its models, and no way out; the folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    nowhere = urllib.request.ProxyHandler(dict.fromkeys(("http", "https"), "http://127.0.0.1:9"))
    # Not by the environment: the first to open an address would keep its proxies for every test
    # that follows.
    urllib.request.install_opener(urllib.request.build_opener(nowhere))
    (tmp_path / ".keras/models").mkdir(parents=True)
    yield tmp_path / ".keras/models"
    urllib.request.install_opener(None)


def test_weights_come_from_an_address_with_a_checksum(small, tmp_path, offline):
    model, path, digest = saved(tmp_path)
    encoder = small(weights=path.as_uri(), sha256=digest)
    encoder(tf.zeros([1, 32, 32, 3]))
    np.testing.assert_array_equal(encoder.network.get_weights()[0], model.get_weights()[0])
    assert [p.name for p in offline.iterdir()] == [f"{digest[:16]}_toy.h5"]
    with pytest.raises(UserError, match=r"an address needs a checksum: give its `sha256`"):
        small(weights=path.as_uri())(tf.zeros([1, 32, 32, 3]))
    with pytest.raises(UserError, match="cannot be had"):
        small(weights=path.as_uri(), sha256="0" * 64)(tf.zeros([1, 32, 32, 3]))
    with pytest.raises(UserError, match="cannot be had"):
        small(weights=(tmp_path / "none.h5").as_uri(), sha256="0" * 64)(tf.zeros([1, 32, 32, 3]))


def test_a_file_that_is_not_meant_not_there_or_no_weights_is_one_line(small, tmp_path):
    _, path, digest = saved(tmp_path)
    (tmp_path / "text.h5").write_text("no weights")
    for settings, said in (
        (
            {"weights": str(path), "sha256": "0" * 64},
            f"is not the file that was meant: its SHA-256 is {digest}",
        ),
        ({"weights": str(tmp_path / "none.h5")}, "there is no such file"),
        ({"weights": "~nobody_of_this_name/none.h5"}, "there is no such home"),
        ({"weights": str(tmp_path / "text.h5")}, "holds no weights by layer"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            small(**settings)(tf.zeros([1, 32, 32, 3]))
        assert "\n" not in str(caught.value)


def test_weights_of_another_architecture_are_listed_and_nothing_is_assigned(tmp_path):
    _, path, _ = saved(tmp_path)
    inputs = tf.keras.Input((32, 32, 3))
    x = tf.keras.layers.Conv2D(5, 3, name="first")(inputs)
    other = tf.keras.Model(inputs, tf.keras.layers.Conv2D(6, 3, name="third")(x))
    before = other.get_weights()
    with pytest.raises(UserError, match="does not fit this backbone") as caught:
        pretrained_weights.load(other, path)
    assert str(caught.value).splitlines()[1:] == [
        "  differs: first is [(3, 3, 3, 4), (4,)] in the file, [(3, 3, 3, 5), (5,)] here",
        "  not in the file: third",
        "  only in the file: norm",
        "  only in the file: second",
    ]
    np.testing.assert_equal(other.get_weights(), before)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")
def test_nothing_in_an_h5_model_is_executed(small, tmp_path):
    # a whole model whose Lambda layer would leave a file behind as soon as Keras built it from its
    # config
    inputs = tf.keras.Input((32, 32, 3))
    marked = tmp_path / "executed"
    mark = tf.keras.layers.Lambda(
        lambda x, path=str(marked): (open(path, "w").close(), x)[1],  # noqa: PTH123
        name="mark",
    )
    evil = tf.keras.Model(inputs, toy(input_shape=(32, 32, 3))(mark(inputs)))
    path = tmp_path / "evil.h5"
    evil.save(path, save_format="h5")
    marked.unlink()  # left by making it
    with pytest.raises(UserError, match="does not fit this backbone"):
        small(weights=str(path))(tf.zeros([1, 32, 32, 3]))
    assert not marked.exists()


def test_random_weights_are_asked_for_and_logged(small, caplog):
    with caplog.at_level(logging.WARNING, "sparring"):
        small(weights=None)(tf.zeros([1, 32, 32, 3]))
    assert "Toy begins with random weights, as weights=null says." in caplog.text
    with pytest.raises(TypeError, match="weights"):
        small()


SHAPE = (32, 32, 3)
# A file that Keras' own code looks for, and its backbone's arguments; MobileNetV2's has no checksum
CACHED = {
    "MobileNetV2": (
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5",
        {"alpha": 0.35},
    ),
    "EfficientNetB0": ("efficientnetb0_notop.h5", {}),
}


@pytest.mark.parametrize("name", CACHED)
def test_weights_come_from_where_keras_keeps_its_own(offline, monkeypatch, name):
    made, _ = application(name)
    file, settings = CACHED[name]
    model = made(include_top=False, weights=None, input_shape=SHAPE, pooling="avg", **settings)
    model.save_weights(offline / file)
    if name == "EfficientNetB0":  # Keras holds the file to a checksum: it is given that of ours
        digest = hashlib.md5((offline / file).read_bytes()).hexdigest()
        monkeypatch.setitem(sys.modules[made.__module__].WEIGHTS_HASHES, "b0", ("", digest))
    encoder = Pretrained(name, "imagenet", settings=settings)
    encoder(tf.zeros([1, *SHAPE]))
    for ours, theirs in zip(encoder.network.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "URL fetch failure"),
        (b"not one of HDF5", "file signature not found"),
        ({"alpha": 0.5}, "Layer mobilenetv2_0.35.*expects|Shape|shape"),
    ],
    ids=["nothing", "garbage", "another architecture"],
)
def test_weights_that_keras_has_not_or_that_are_none_are_one_line(offline, content, said):
    file, settings = CACHED["MobileNetV2"]
    if isinstance(content, bytes):
        (offline / file).write_bytes(content)
    elif content:
        other = tf.keras.applications.MobileNetV2(
            include_top=False, weights=None, input_shape=SHAPE, **content
        )
        other.save_weights(offline / file)
    with pytest.raises(
        UserError, match=r"^weights=imagenet: .*MobileNetV2 .*~/\.keras/models"
    ) as caught:
        Pretrained("MobileNetV2", "imagenet", settings=settings)(tf.zeros([1, *SHAPE]))
    assert re.search(said, str(caught.value))
    assert "\n" not in str(caught.value)


def test_too_small_an_image_is_told_of_before_weights_that_are_not_there(offline):
    with pytest.raises(UserError, match=r"^backbone=VGG16: Input size must be at least 32x32"):
        Pretrained("VGG16", "imagenet")(tf.zeros([1, 16, 16, 3]))


# ---- freezing ------------------------------------------------------------------------------------


def trainer(small, stages, **settings):
    rng = np.random.default_rng(0)
    images = {
        s: rng.integers(0, 256, size=(32, 8, 8, 3)).astype(np.uint8) for s in ("train", "test")
    }
    data = Arrays(images, {s: np.arange(32) % 2 for s in images}, 0)
    return SupervisedTrainer(
        data,
        partial(Headed, torso=partial(small, weights=None, **settings)),
        Classification,
        Scheduled(tf.keras.optimizers.Adam(), 1e-2),
        8,
        0,
        160,
        stages,
    )


def test_a_frozen_backbone_stays_to_the_bit_and_single_layers_can_be_unfrozen(small):
    stages = {"head": Stage(["head/.*"]), "top": Stage(["torso/blocks/second/.*"], at=0.5)}
    found = trainer(small, stages, fixed_statistics=False)
    network = found.network.torso.network
    before = network.get_weights()
    found.train(80)
    np.testing.assert_equal(network.get_weights(), before)
    found.train(80)
    after = dict(
        zip((v.name.split(":")[0] for v in network.weights), network.get_weights(), strict=True)
    )
    moved = [n for n, b in zip(after, before, strict=True) if (after[n] != b).any()]
    assert moved == ["second/kernel", "second/bias"]


@pytest.mark.parametrize(("fixed", "moves"), [(True, False), (False, True)])
def test_statistics_move_only_where_they_are_to(small, fixed, moves):
    found = trainer(small, None, fixed_statistics=fixed)
    norm = found.network.torso.network.get_layer("norm")
    before = norm.moving_mean.numpy()
    found.train(80)
    assert (norm.moving_mean.numpy() != before).any() == moves


def test_an_encoder_of_agents_has_no_weights_that_train(small):
    encoder = small(weights=None, trainable=False, units=[3])
    encoder(tf.zeros([1, 8, 8, 3]))
    assert [v.shape for v in encoder.trainable_variables] == [(6, 3), (3,)]
    before = encoder.network.get_weights()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(encoder(tf.ones([4, 8, 8, 3]), training=True))
    assert all(g is not None for g in tape.gradient(loss, encoder.trainable_variables))
    np.testing.assert_equal(encoder.network.get_weights(), before)


# ---- text encoders -------------------------------------------------------------------------------


class Bert(tf.Module):
    """Embeds words and answers with the mean over those that the mask counts."""

    def __init__(self):
        super().__init__()
        self.table = tf.Variable(np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32))

    @tf.function(
        input_signature=[
            {
                k: tf.TensorSpec([None, None], tf.int32, name=k)
                for k in ("input_word_ids", "input_mask", "input_type_ids")
            }
        ]
    )
    def __call__(self, inputs):
        mask = tf.cast(inputs["input_mask"], tf.float32)[..., None]
        vectors = tf.gather(self.table, inputs["input_word_ids"]) * mask
        return {
            "pooled_output": tf.reduce_sum(vectors, 1) / tf.reduce_sum(mask, 1),
            "sequence_output": vectors,
        }


def test_a_text_encoder_of_a_folder(tmp_path):
    pytest.importorskip("tensorflow_hub")
    bert = Bert()
    tf.saved_model.save(bert, str(tmp_path / "bert"))
    encoder = HubEncoder(str(tmp_path / "bert"))
    found = encoder(tf.constant([[3, 4, PADDING], [5, 6, 7]], tf.int64))
    table = bert.table.numpy()
    np.testing.assert_allclose(
        found, [table[[3, 4]].mean(axis=0), table[[5, 6, 7]].mean(axis=0)], atol=1e-6
    )
    assert encoder.trainable_variables == []
    with pytest.raises(
        UserError, match="output=nothing: it answers pooled_output, sequence_output"
    ):
        HubEncoder(str(tmp_path / "bert"), output="nothing")(tf.ones([1, 2], tf.int64))
    with pytest.raises(UserError, match=r"there is no SavedModel, a folder with a saved_model\.pb"):
        HubEncoder("https://tfhub.dev/bert")

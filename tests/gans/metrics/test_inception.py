"""The user's own Inception file: its hash, its operations one by one, and nothing else of it."""

import hashlib
import re

import numpy as np
import pytest
import tensorflow as tf

from sparring.data import arrays, synthetic_shapes
from sparring.data.pixel_values import pixels
from sparring.errors import UserError
from sparring.gans.metrics.extractors import Pixels
from sparring.gans.metrics.feature_scores import FeatureScores, Frechet
from sparring.gans.metrics.inception import Graph, Inception

pytestmark = pytest.mark.long

RNG = np.random.default_rng(0)
DIGITS = arrays.digits(0)


def small_network(extra=None):
    """A graph with the real one's operations, input and output: 4 features of 12x12 images;
    TensorFlow's own answer.
    """
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        image = v1.placeholder(tf.float32, [1, None, None, 3], "ExpandDims")
        x = tf.raw_ops.ResizeBilinear(images=image, size=[12, 12])
        x = tf.raw_ops.Mul(x=tf.raw_ops.Sub(x=x, y=128.0), y=1 / 128)
        kernel = tf.identity(tf.constant(RNG.normal(size=(3, 3, 3, 2)).astype(np.float32)))
        x = tf.raw_ops.CheckNumerics(tensor=tf.nn.conv2d(x, kernel, 2, "VALID"), message="")
        x = tf.nn.relu(tf.nn.bias_add(x, tf.constant([0.1, -0.2])))
        parts = [tf.nn.max_pool2d(x, 3, 1, "SAME"), tf.nn.avg_pool2d(x, 3, 1, "SAME")]
        x = tf.concat(parts, 3)
        if extra is not None:
            x = extra(x)
        tf.nn.avg_pool2d(x, 5, 1, "VALID", name="pool_3")
        # Not needed for pool_3: never looked at
        tf.raw_ops.WriteFile(filename="/nowhere", contents="x")
    definition = graph.as_graph_def()

    def answer(images):
        with v1.Session(graph=graph) as session:
            return np.concatenate(
                [session.run("pool_3:0", {"ExpandDims:0": i[None]}) for i in images]
            )[:, 0, 0]

    return definition.SerializeToString(), answer


def saved(tmp_path, content):
    path = tmp_path / "graph.pb"
    path.write_bytes(content)
    return str(path), hashlib.sha256(content).hexdigest()


def test_features_are_those_tensorflow_computes_from_the_graph(tmp_path):
    content, answer = small_network()
    data = synthetic_shapes.Shapes(0, 100, 40, 16)
    images = data.examples("test")[0]
    found = Inception(data, *saved(tmp_path, content)).features(images)
    assert found.shape == (40, 4)
    np.testing.assert_allclose(
        found, answer(pixels(images).astype(np.float32)), rtol=1e-4, atol=1e-5
    )


def test_grey_images_are_seen_as_rgb(tmp_path):
    content, answer = small_network()
    images = DIGITS.examples("test", 5)[0]
    found = Inception(DIGITS, *saved(tmp_path, content)).features(images)
    np.testing.assert_allclose(
        found, answer(np.repeat(pixels(images), 3, -1).astype(np.float32)), rtol=1e-4, atol=1e-5
    )


def test_only_its_distance_is_called_fid(tmp_path):
    path, sha256 = saved(tmp_path, small_network()[0])
    scores = FeatureScores(
        DIGITS, lambda data: Inception(data, path, sha256), [Frechet()], samples=50, reference=50
    )
    found = scores(lambda n: DIGITS.examples("test", n))
    assert found.keys() == {"gan/fid", "gan/fid_floor"}
    assert scores.notes["extractor"] == sha256
    assert "gan/fid" not in FeatureScores(DIGITS, Pixels, [Frechet()]).descriptions


def test_the_2015_networks_batch_normalisation():
    # (x - mean) / sqrt(variance + 0.001) + beta; x 3, mean 1, variance 3.999, beta 5: 6. Not scaled
    # by gamma.
    graph = tf.compat.v1.GraphDef()

    def node(name, op, *inputs):
        added = graph.node.add(name=name, op=op, input=inputs)
        return added.attr

    node("in", "Placeholder")
    for name, value in {"mean": 1.0, "variance": 3.999, "beta": 5.0, "gamma": 7.0}.items():
        node(name, "Const")["value"].tensor.CopyFrom(tf.make_tensor_proto([value], tf.float32))
    attr = node(
        "out", "BatchNormWithGlobalNormalization", "in", "mean", "variance", "beta", "gamma"
    )
    attr["variance_epsilon"].f = 0.001
    attr["scale_after_normalization"].b = False
    x = tf.fill([1, 1, 1, 1], 3.0)
    assert Graph(graph.SerializeToString(), "", "in", "out")(x).numpy().ravel() == pytest.approx(
        6.0
    )
    attr["scale_after_normalization"].b = True
    assert Graph(graph.SerializeToString(), "", "in", "out")(x).numpy().ravel() == pytest.approx(
        7 + 5
    )


def test_another_file_is_refused_by_its_hash(tmp_path):
    path, sha256 = saved(tmp_path, small_network()[0])
    with pytest.raises(
        UserError, match=rf"its SHA-256 is {sha256}, not extractor\.sha256=00: it is another file"
    ):
        Inception(DIGITS, path, "00")
    assert Inception(DIGITS, path, sha256.upper()).notes["extractor"] == sha256


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no graph", "is no frozen TensorFlow graph"),
        (b"", "has no node ExpandDims: it is another network"),
        (
            small_network(lambda x: x + 0 * tf.strings.to_number(tf.io.read_file("/etc/hostname")))[
                0
            ],
            "a ReadFile, which",
        ),
        (small_network(lambda x: tf.math.asin(x))[0], "is a Asin, which is not carried out"),
    ],
)
def test_a_graph_that_does_anything_else_is_refused(tmp_path, content, said):
    with pytest.raises(UserError, match=re.escape(said)):
        Inception(DIGITS, *saved(tmp_path, content))


def test_a_graph_with_a_node_missing_is_damaged():
    graph = tf.compat.v1.GraphDef()
    graph.node.add(name="ExpandDims", op="Placeholder")
    graph.node.add(name="pool_3", op="Relu", input=["lost"])
    with pytest.raises(UserError, match="lacks its node lost: it is damaged"):
        Graph(graph.SerializeToString(), "extractor.path=x", "ExpandDims", "pool_3")


def test_missing_files_and_other_data_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"extractor\.path=.*none\.pb: No such file"):
        Inception(DIGITS, str(tmp_path / "none.pb"), "00")
    from sparring.gans.data import mixtures

    with pytest.raises(UserError, match=r"takes grey or RGB images, not examples of shape \[2\]"):
        Inception(mixtures.ring(), "x", "00")

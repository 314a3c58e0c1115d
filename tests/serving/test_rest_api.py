"""JSON to tensors and back, as TensorFlow Serving does it; what does not fit is refused, never a
fault of ours.
"""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparring.serving import rest_api
from sparring.serving.errors import Refusal
from sparring.serving.rest_api import TensorSpec

X = TensorSpec("x", np.dtype("float32"), (None, 2))
N = TensorSpec("n", np.dtype("int32"), (None,))
WORD = TensorSpec("word", np.dtype(object), (None,))


def read(content, specs, finite=True, depth=32):
    query = rest_api.read(json.dumps(content).encode(), depth)
    return rest_api.inputs(query, {s.name: s for s in specs}, finite)


def refused(content, specs, **settings) -> str:
    with pytest.raises(Refusal) as refusal:
        read(content, specs, **settings)
    assert refusal.value.code == 400
    return str(refusal.value)


def test_rows_and_columns_are_the_same_tensors():
    expected = np.array([[1, 2.5], [3, 4]], np.float32)
    for content in (
        {"instances": [[1, 2.5], [3, 4]]},
        {"instances": [{"x": [1, 2.5]}, {"x": [3, 4]}]},
        {"inputs": [[1, 2.5], [3, 4]]},
        {"inputs": {"x": [[1, 2.5], [3, 4]]}},
    ):
        found = read(content, [X])["x"]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


def test_several_inputs_by_name():
    rows = read({"instances": [{"x": [1, 2], "n": 7}, {"x": [3, 4], "n": -8}]}, [X, N])
    columns = read({"inputs": {"n": [7, -8], "x": [[1, 2], [3, 4]]}}, [X, N])
    for found in (rows, columns):
        assert found["n"].dtype == np.int32
        np.testing.assert_array_equal(found["n"], [7, -8])
        np.testing.assert_array_equal(found["x"], [[1, 2], [3, 4]])


def test_strings_and_bytes():
    found = read({"instances": ["häuser", {"b64": "aW1hZ2UgYnl0ZXM="}]}, [WORD])["word"]
    assert found.tolist() == ["häuser".encode(), b"image bytes"]
    assert read({"instances": [{"word": {"b64": "AP8="}}]}, [WORD])["word"].tolist() == [
        b"\x00\xff"
    ]
    assert "base64" in refused({"instances": [{"b64": "%%"}, "b"]}, [WORD])


@pytest.mark.parametrize(
    ("content", "specs", "said"),
    [
        ({}, [X], "Give either 'instances'"),
        ({"instances": [[1, 2]], "inputs": [[1, 2]]}, [X], "one of the two"),
        ({"instances": []}, [X], "one instance at least"),
        ({"instances": 3}, [X], "must be a list"),
        ({"instances": [[1, 2, 3]]}, [X], r"shape [1, 3], expected [-1, 2]"),
        ({"instances": [[1, 2], [3]]}, [X], "different lengths"),
        ({"instances": [1, 2]}, [X], "shape [2]"),
        ({"instances": [["a", "b"]]}, [X], "expected type float32"),
        ({"instances": [[None, 1]]}, [X], "expected type float32"),
        ({"instances": [[True, False]]}, [X], "expected type float32"),
        ({"instances": [[True, 1.0]]}, [X], "expected type float32"),
        ({"instances": [3, False]}, [N], "expected type int32"),
        ({"instances": [[1, 2], {"x": [3, 4]}]}, [X], "different lengths"),
        ({"instances": [{"x": [1, 2]}, [3, 4]]}, [X], "Instance 1 is not"),
        ({"instances": [{"y": [1, 2]}]}, [X], "Instance 0 is not"),
        ({"instances": [[1, 2]]}, [X, N], "inputs x, n"),
        ({"inputs": {"x": [[1, 2]], "n": [1], "z": 0}}, [X, N], "inputs x, n"),
        ({"inputs": [[1, 2]]}, [X, N], "inputs x, n"),
        ({"instances": [1.5]}, [N], "expected type int32"),
        ({"instances": [2**31]}, [N], "does not fit int32"),
        ({"instances": [10**30]}, [N], "expected type int32"),
        ({"instances": [[float("nan"), 1]]}, [X], "NaN, infinite"),
        ({"instances": [[float("inf"), 1]]}, [X], "NaN, infinite"),
        ({"instances": [[1e39, 1]]}, [X], "too large for float32"),
        ({"instances": [3]}, [WORD], "neither a string"),
        ({"instances": [["a"], "b"]}, [WORD], "different lengths"),
        ({"signature_name": 3, "instances": [[1, 2]]}, [X], "must be a string"),
        ([], [X], "not a JSON object"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_reason(content, specs, said):
    assert said in refused(content, specs)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rows", [True, False])
def test_an_answer_that_json_cannot_say_is_an_error_with_a_code(number, rows):
    outputs = {"word": np.array([b"a"], object), "y": np.array([[1.0, number]], np.float32)}
    with pytest.raises(Refusal, match=r"y: the model's answer .* NaN or infinite") as caught:
        rest_api.reply(outputs, rows)
    assert caught.value.code == 500


def test_nan_is_answered_where_it_is_allowed():
    found = rest_api.reply({"y": np.array([np.nan, np.inf])}, True, finite=False)
    assert found == b'{"predictions":[NaN,Infinity]}'


def test_nan_passes_where_it_is_allowed():
    found = read({"instances": [[float("nan"), float("-inf")]]}, [X], finite=False)["x"]
    np.testing.assert_array_equal(found, [[np.nan, -np.inf]])


def test_an_empty_column_has_its_type():
    assert read(
        {"inputs": {"x": np.zeros([0, 2]).tolist() or []}}, [TensorSpec("x", X.dtype, (None,))]
    )["x"].shape == (0,)


def test_nesting_counts_brackets_outside_strings():
    assert rest_api.nesting(b'{"a": [[1], [2, [3]]]}') == 4
    assert rest_api.nesting(b'{"a": "[[[[[[[[[[[[[[[[", "b": [[]], "c": [], "d": [], "e": []}') == 3
    assert rest_api.nesting(rb'{"a": "\"[[[[[[[[[[[[[[[[", "b": [[[]]]}') == 4
    assert rest_api.nesting(b"[" * 1000) == 1000
    assert rest_api.nesting(b"[[[[[[[[[[]]]]]]]]]]") == 10
    deep: list = []
    for _ in range(40):
        deep = [deep]
    assert "nested deeper than 32" in refused({"instances": deep}, [X])


def test_another_encoding_does_not_get_round_the_limit_of_depth():
    r"""In UTF-16 the letter \u2200 has a byte 22, which is a quote: brackets behind it would be in
    a string.
    """
    text = '{"a\u2200": ' + "[" * 40 + "]" * 40 + ', "instances": [[1, 2]]}'
    for encoding in ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32-le"):
        with pytest.raises(Refusal, match=r"nested deeper than 32|JSON Parse error"):
            rest_api.read(text.encode(encoding), 32)


def test_a_number_of_too_many_digits_is_refused():
    with pytest.raises(Refusal, match="a whole number of thousands of digits"):
        rest_api.read(b'{"instances": [' + b"9" * 5000 + b"]}", 32)


def test_truth_is_itself_where_it_is_asked_for_and_in_texts():
    flag = TensorSpec("flag", np.dtype(bool), (None,))
    np.testing.assert_array_equal(read({"instances": [True, False]}, [flag])["flag"], [True, False])
    found = read({"instances": [{"word": "true", "n": 1}]}, [WORD, N])
    assert (found["word"].tolist(), found["n"].tolist()) == ([b"true"], [1])


def test_hostile_texts_are_refused_before_the_time_that_quadratic_reading_takes():
    for text in (
        b'"' + rb"\"" * 10**6,
        b"[" * 10**6,
        b'{"a":' * 10**6,
        b"[]," * 10**6,
        b"9" * 10**6,
    ):
        with pytest.raises(Refusal):
            rest_api.read(text, 32)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["x", "n", "b64", "word"]), inner)
    ),
    max_leaves=12,
)


@given(
    st.sampled_from(["instances", "inputs"]),
    VALUES,
    st.sampled_from([[X], [N], [WORD], [X, N]]),
    st.booleans(),
)
def test_whatever_comes_is_tensors_of_the_specs_or_a_refusal(key, value, specs, finite):
    try:
        found = read({key: value}, specs, finite)
    except Refusal:
        return
    assert found.keys() == {s.name for s in specs}
    for spec in specs:
        array = found[spec.name]
        assert array.dtype == spec.dtype
        assert array.shape[1:] == spec.shape[1:]
        assert not finite or spec.dtype != np.float32 or np.isfinite(array).all()


@given(st.binary(max_size=64))
def test_bytes_that_are_no_json_are_refused(body):
    with pytest.raises(Refusal, match="JSON"):
        rest_api.read(b"\xff" + body, 32)


@given(st.lists(st.floats(width=32), min_size=1, max_size=5))
def test_numbers_come_back_to_the_bit(numbers):
    array = np.array(numbers, np.float32)
    found = json.loads(rest_api.reply({"y": array}, rows=True, finite=False))["predictions"]
    np.testing.assert_array_equal(np.array(found, np.float32), array)


def test_replies_have_names_where_there_are_several_outputs():
    two = {"a": np.array([1, 2]), "b": np.array([[0.5], [1.5]], np.float32)}
    assert json.loads(rest_api.reply(two, True)) == {
        "predictions": [{"a": 1, "b": [0.5]}, {"a": 2, "b": [1.5]}]
    }
    assert json.loads(rest_api.reply(two, False)) == {"outputs": {"a": [1, 2], "b": [[0.5], [1.5]]}}
    assert json.loads(rest_api.reply({"a": two["a"]}, False)) == {"outputs": [1, 2]}
    data = np.array([b"\x00\xff", b"ab"], object)
    assert json.loads(rest_api.reply({"image_bytes": data}, True)) == {
        "predictions": [{"b64": "AP8="}, {"b64": "YWI="}]
    }
    assert json.loads(rest_api.reply({"word": data[1:]}, True)) == {"predictions": ["ab"]}
    with pytest.raises(Refusal, match="no batch dimension in common"):
        rest_api.reply({"a": np.zeros(2), "b": np.zeros(3)}, True)

import json
import math
import struct
from enum import IntEnum

import numpy as np
import pytest

from sparring.errors import UserError
from sparring.storage import manifest


def roundtrip(value):
    return manifest.decode_host(*manifest.encode_host({"value": value}))["value"]


def bits(value: float) -> bytes:
    return struct.pack(">d", value)


@pytest.mark.parametrize(
    "value",
    [None, True, False, 0, -(2**127) - 1, 2**128 - 1, "", "a\n\u00e9\ud800", [], {}, [[], {}]],
)
def test_plain_values_come_back_with_their_type(value):
    restored = roundtrip(value)
    assert restored == value
    assert type(restored) is type(value)


@pytest.mark.parametrize(
    "pattern",
    [
        "3fb999999999999a",  # 0.1
        "8000000000000000",  # -0.0
        "0000000000000001",  # the smallest subnormal
        "7fefffffffffffff",  # the largest finite
        "7ff0000000000000",
        "fff0000000000000",
        "fff8000000000123",  # a negative nan with a payload
    ],
)
def test_floats_come_back_bit_for_bit(pattern):
    value = struct.unpack(">d", bytes.fromhex(pattern))[0]
    assert bits(roundtrip(value)).hex() == pattern


def test_json_stays_json_that_other_programs_read():
    text, _ = manifest.encode_host({"a": math.nan, "b": math.inf})
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.parametrize(
    "array",
    [
        np.array(3, np.int8),
        np.zeros((0, 3), np.uint16),
        np.array([True, False]),
        np.array([[2**64 - 1]], np.uint64),
        np.arange(6, dtype=np.float16).reshape(2, 3).T,
        np.array([1.5, 2.5], ">f4"),
        np.array([1 + 2j], np.complex64),
        np.arange(10)[::3],
    ],
)
def test_arrays_come_back_with_dtype_and_shape(array):
    restored = roundtrip({"deep": [array]})["deep"][0]
    assert type(restored) is np.ndarray
    assert restored.dtype == array.dtype
    assert restored.shape == array.shape
    assert restored.tobytes() == array.tobytes()


@pytest.mark.parametrize("scalar", [np.float32(0.1), np.float64(0.1), np.int64(-5), np.bool_(True)])
def test_numpy_scalars_keep_their_type(scalar):
    restored = roundtrip(scalar)
    assert type(restored) is type(scalar)
    assert restored == scalar


def test_dicts_that_look_like_our_marks_come_back_as_they_were():
    state = {"$array": "0", "a": {"$float": "x"}, "b": {"$dict": {"$scalar": 1}, "c": np.ones(2)}}
    restored = roundtrip(state)
    assert restored["$array"] == "0"
    assert restored["a"] == {"$float": "x"}
    assert restored["b"]["$dict"] == {"$scalar": 1}
    np.testing.assert_array_equal(restored["b"]["c"], [1.0, 1.0])


def test_tuples_come_back_as_lists_and_order_of_keys_is_kept():
    restored = roundtrip({"z": (1, (2.0, "3")), "a": 0})
    assert restored == {"z": [1, [2.0, "3"]], "a": 0}
    assert list(restored) == ["z", "a"]


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.MT19937, np.random.Philox])
def test_numpy_generators_continue(kind):
    generator = np.random.Generator(kind(7))
    generator.random(3)
    state = roundtrip(generator.bit_generator.state)
    expected = generator.integers(2**63, size=5)
    other = np.random.Generator(kind(0))
    other.bit_generator.state = state
    np.testing.assert_array_equal(other.integers(2**63, size=5), expected)


class Colour(IntEnum):
    RED = 1


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        b"bytes",
        Colour.RED,
        {1: "a"},
        np.array([object()]),
        np.array(["a"]),
        np.ma.masked_array([1], [True]),
    ],
)
def test_what_would_not_come_back_the_same_is_refused_with_its_place(value):
    with pytest.raises(UserError, match=r"host/env/1: .* cannot be saved"):
        manifest.encode_host({"env": [0, value]})


class _Bomb:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_loading_unpickles_nothing(tmp_path):
    np.savez(tmp_path / "evil.npz", **{"0": np.array([_Bomb()], object)})
    with pytest.raises(ValueError, match="allow_pickle"):
        manifest.decode_host(b'{"a": {"$array": "0"}}', (tmp_path / "evil.npz").read_bytes())


def sealed(folder, step=7):
    folder.mkdir()
    for name in ("host.json", "host.npz", "tensors.index", "tensors.data-00000-of-00001"):
        manifest.write(folder / name, name.encode() * 9)
    manifest.seal(folder, step, {"tensorflow": "2"})
    return folder


def test_manifest_lists_size_and_known_digest(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    manifest.write(folder / "abc", b"abc")
    manifest.seal(folder, 7, {"tensorflow": "2"})
    content = json.loads((folder / "manifest.json").read_text())
    # The SHA-256 of "abc" is the first example of FIPS 180-2, appendix B.1.
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert content["files"] == {"abc": {"size": 3, "sha256": digest}}
    assert (content["format"], content["step"], content["versions"]) == (1, 7, {"tensorflow": "2"})


def test_sound_folder_verifies_and_must_list_every_needed_file(tmp_path):
    manifest.verify(sealed(tmp_path / "a"), 7)
    for name in ("host.json", "host.npz", "tensors.index", "tensors.data-00000-of-00001"):
        folder = sealed(tmp_path / f"without-{name}")
        (folder / name).unlink()
        (folder / "manifest.json").unlink()
        manifest.seal(folder, 7, {})
        with pytest.raises(manifest.DamagedError, match=f"does not list {name[:10]}"):
            manifest.verify(folder, 7)


def test_any_flipped_bit_of_any_file_is_found(tmp_path):
    folder = sealed(tmp_path / "a")
    random = np.random.default_rng(0)
    for path in sorted(folder.iterdir()):
        sound = path.read_bytes()
        for position in random.integers(8 * len(sound), size=40):
            flipped = bytearray(sound)
            flipped[position // 8] ^= 1 << (position % 8)
            path.write_bytes(flipped)
            with pytest.raises(manifest.DamagedError):
                manifest.verify(folder, 7)
        path.write_bytes(sound)
    manifest.verify(folder, 7)


def test_a_later_format_is_not_taken_for_damage(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "FORMAT", 2)
    folder = sealed(tmp_path / "a")
    monkeypatch.undo()
    with pytest.raises(UserError, match="format 2, this version of Sparring reads 1"):
        manifest.verify(folder, 7)

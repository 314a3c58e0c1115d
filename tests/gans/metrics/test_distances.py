"""Distances between sets of features, against closed forms, plain numpy, scipy and prdc."""

import contextlib
import io
import tracemalloc

import numpy as np
import pytest
import scipy.linalg
from prdc import compute_prdc

from sparring.gans.metrics import distances
from sparring.gans.metrics.distances import (
    frechet,
    kernel_distance,
    moments,
    nearest,
    neighbours,
    sliced_wasserstein,
)

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(700, 12)).astype(np.float32) @ RNG.normal(size=(12, 12)).astype(np.float32)
HALF = REAL[REAL[:, 0] > 0][:300]  # fakes are of one side only, and noisy
FAKE = HALF + RNG.normal(size=(300, 12)).astype(np.float32)


@pytest.fixture(params=[2**10, 2**17, 2**25], ids=["rows", "blocks", "whole"])
def block_bytes(request, monkeypatch):
    """From a row at a time (1 KiB) to all at once; 128 KiB leaves a smaller last block."""
    monkeypatch.setattr(distances, "_BLOCK_BYTES", request.param)


def test_moments_are_numpys(block_bytes):
    found = moments(REAL + 1000)
    np.testing.assert_allclose(
        found.mean, (REAL + 1000).astype(np.float64).mean(axis=0), rtol=1e-12
    )
    np.testing.assert_allclose(
        found.covariance, np.cov((REAL + 1000).astype(np.float64), rowvar=False), rtol=1e-9
    )


def test_frechet_of_two_gaussians_by_hand():
    # means (0, 0) and (3, 4): 25. Variances (1, 4) against (9, 16): (1 - 3)^2 + (2 - 4)^2 = 8. Four
    # points at (+-s, 0), (0, +-t) have the unbiased covariance diag(2 s^2, 2 t^2) / 3.
    def points(mean, variances):
        s, t = np.sqrt(np.array(variances) * 1.5)
        return np.array(mean) + np.array([[s, 0], [-s, 0], [0, t], [0, -t]])

    a = moments(points((0, 0), (1, 4)))
    b = moments(points((3, 4), (9, 16)))
    assert frechet(a, b) == pytest.approx(33.0, abs=1e-9)
    assert frechet(b, a) == pytest.approx(33.0, abs=1e-9)
    assert frechet(a, a) == pytest.approx(0.0, abs=1e-12)
    # turning the first Gaussian by 45 degrees keeps its traces, so only the root's trace changes:
    # C1 = [[2.5, 1.5], [1.5, 2.5]], C2 = diag(9, 16): tr (C1 C2)^(1/2) = sqrt(tr(C1 C2) + 2
    # sqrt(det(C1 C2))) = sqrt(62.5 + 2 * 24) = 10.5119; 25 + 5 + 25 - 2 * 10.5119
    turn = np.array([[1, 1], [-1, 1]]) / np.sqrt(2)
    assert frechet(moments(points((0, 0), (1, 4)) @ turn), b) == pytest.approx(
        55 - 2 * np.sqrt(110.5), abs=1e-9
    )


def test_frechet_is_what_a_general_square_root_gives(block_bytes):
    a, b = (np.cov(x.astype(np.float64), rowvar=False) for x in (REAL, FAKE))
    gap = REAL.mean(axis=0, dtype=np.float64) - FAKE.mean(axis=0, dtype=np.float64)
    expected = gap @ gap + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    assert frechet(moments(REAL), moments(FAKE)) == pytest.approx(expected, rel=1e-8)


def test_frechet_of_fewer_samples_than_dimensions_is_finite():
    few = RNG.normal(size=(20, 64))
    assert frechet(moments(few), moments(few)) == pytest.approx(0.0, abs=1e-5)
    assert np.isfinite(frechet(moments(few), moments(few[:10] + 1)))


def test_kernel_distance_is_the_mean_over_pairs(block_bytes):
    x = REAL[:40].astype(np.float64)
    y = FAKE[:30].astype(np.float64)

    def kernel(p, q):
        return (p @ q / 12 + 1) ** 3

    xx = np.mean([kernel(x[i], x[j]) for i in range(40) for j in range(40) if i != j])
    yy = np.mean([kernel(y[i], y[j]) for i in range(30) for j in range(30) if i != j])
    xy = np.mean([kernel(p, q) for p in x for q in y])
    assert kernel_distance(x, y) == pytest.approx(xx + yy - 2 * xy, rel=1e-9)


def test_kernel_distance_is_unbiased():
    # halves of one sample: about half of the estimates lie below zero, and their mean is near it
    found = []
    for i in range(40):
        draws = np.random.default_rng(i).normal(size=(100, 4))
        found.append(kernel_distance(draws[:50], draws[50:]))
    assert 5 < np.sum(np.array(found) < 0) < 35
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(40)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_neighbours_are_those_of_prdc(block_bytes, k):
    with contextlib.redirect_stdout(io.StringIO()):
        expected = compute_prdc(REAL, FAKE, nearest_k=k)
    found = neighbours(REAL, FAKE, k)
    assert found == pytest.approx(expected, abs=1e-9)
    assert 0.05 < found["recall"] < 0.95  # neither empty nor full
    assert 0.05 < found["coverage"] < 0.95


def test_neighbours_by_hand():
    # real 0, 1, 10; k = 1: radii 1, 1, 9. fake 0.5, 1.5, 30: radii 1, 1, 28.5.
    # 0.5 is in the balls of 0 and 1; 1.5 in those of 1 and 10 (8.5 < 9); 30 in none
    # real 0 is in the ball of 0.5; 1 in those of 0.5 and 1.5; 10 in that of 30 (20 < 28.5)
    found = neighbours(np.array([[0.0], [1.0], [10.0]]), np.array([[0.5], [1.5], [30.0]]), 1)
    assert found == {
        "precision": pytest.approx(2 / 3),
        "recall": 1.0,
        "density": pytest.approx(4 / 3),
        "coverage": 1.0,
    }


def test_nearest_is_the_nearest(block_bytes):
    index, distance = nearest(FAKE, REAL)
    whole = np.linalg.norm(
        FAKE[:, None].astype(np.float64) - REAL[None].astype(np.float64), axis=-1
    )
    np.testing.assert_array_equal(index, whole.argmin(axis=1))
    np.testing.assert_allclose(distance, whole.min(axis=1), rtol=1e-9)


def test_sliced_wasserstein_of_a_shift_is_its_length_by_the_root_of_the_dimension(block_bytes):
    # along direction u a shift v moves every projection by u.v: the squared distances are (u.v)^2
    directions = RNG.normal(size=(50, 12))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    shift = RNG.normal(size=12)
    found = sliced_wasserstein(REAL.astype(np.float64), REAL[::-1] + shift, directions)
    assert found == pytest.approx(np.sqrt(np.mean((directions @ shift) ** 2)), rel=1e-6)


def test_sliced_wasserstein_of_scaled_points_on_a_line():
    # sorted 0, 1, 2 against 0, 2, 4: gaps 0, 1, 2, mean square 5/3
    found = sliced_wasserstein(
        np.array([[2.0], [0], [1]]), np.array([[0.0], [4], [2]]), np.array([[1.0]])
    )
    assert found == pytest.approx(np.sqrt(5 / 3))


@pytest.mark.parametrize("measure", [kernel_distance, lambda a, b: neighbours(a, b, 5), nearest])
def test_memory_does_not_grow_with_pairs(measure):
    # 3000 x 3000 distances in float64 are 72 MB; in blocks of 1 MiB less than 10 MB is held
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "_BLOCK_BYTES", 2**20)
        a, b = RNG.normal(size=(2, 3000, 8)).astype(np.float32)
        tracemalloc.start()
        measure(a, b)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 10e6

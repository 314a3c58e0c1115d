"""Training a trainer made in Python, without a config."""

import json
from pathlib import Path

import numpy as np
import pytest

from sparring.errors import UserError
from sparring.training.fit import fit, set_random_seed
from tests.helpers import toy_gans

pytestmark = pytest.mark.long


def weights(trainer) -> list[np.ndarray]:
    return [v.numpy() for v in trainer.game.generator.weights]


def test_a_run_is_resumed_and_continues_to_the_bit(tmp_path: Path) -> None:
    whole = toy_gans.make(total_steps=640)
    fit(whole, tmp_path / "whole")
    fit(toy_gans.make(total_steps=640), tmp_path / "parts", steps=320)
    parts = toy_gans.make(total_steps=640)
    outcome = fit(parts, tmp_path / "parts")
    assert (outcome.status, outcome.step) == ("finished", 640)
    for ours, theirs in zip(weights(whole), weights(parts), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    result = json.loads((tmp_path / "parts/result.json").read_text())
    assert result["objective"]["name"] == "gan/mean_distance"
    trainer = json.loads((tmp_path / "parts/trainer.json").read_text())
    assert trainer == {"objective": "gan/mean_distance", "maximize": False, "unit": "images"}


def test_intervals_may_be_chosen(tmp_path: Path) -> None:
    trainer = toy_gans.make(total_steps=640)
    fit(trainer, tmp_path, checkpoint_every=160, keep=10)
    assert (
        len(list((tmp_path / "checkpoints").glob("step_*"))) == 5
    )  # and one before the first evaluation


def test_nan_is_an_error_that_says_so(tmp_path: Path) -> None:
    trainer = toy_gans.make(total_steps=640, rate=float("nan"))
    with pytest.raises(UserError, match="Not finite"):
        fit(trainer, tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "nan"


def test_a_seed_fixes_the_initial_weights() -> None:
    from sparring.networks.mlp import MLP

    found = []
    for seed in (1, 1, 2):
        set_random_seed(seed)
        network = MLP()
        network(np.zeros((1, 3), np.float32))
        found.append(network.weights[0].numpy())
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])

"""Comparison of an agent's returns with an expert's, and the films of both."""

import numpy as np
import pytest

from sparring.agents.imitation import expert as imitation_expert
from sparring.agents.imitation.demonstrations import Demonstrations, load
from sparring.agents.imitation.expert import Expert, compared
from sparring.agents.training import film
from sparring.training.trainer import Evaluation
from tests.helpers.demonstrations import CARTPOLE, made_up


def test_returns_are_compared_by_hand() -> None:
    # All four pairs favour the agent. Of the 4! / (2! 2!) = 6 ways to deal 1, 2, 3, 4 out in twos,
    # means differ by 2 in two: {3, 4} against {1, 2} and the reverse.
    found = compared(np.array([3.0, 4.0]), np.array([1.0, 2.0]))
    assert found["imitation/probability_of_improvement"] == 1.0
    assert found["imitation/permutation_p_value"] == pytest.approx(2 / 6)
    # (1 > 0) + half of (1 = 1), of two pairs; one episode is too few for the test
    found = compared(np.array([1.0]), np.array([0.0, 1.0]))
    assert found == {"imitation/probability_of_improvement": 0.75}


def test_films_stand_side_by_side_and_the_shorter_stands_still() -> None:
    left = np.zeros([2, 3, 4, 3], np.uint8)
    left[1] = 7
    right = np.full([4, 2, 5, 3], 9, np.uint8)
    both = film.beside(left, right)
    assert both.shape == (4, 3, 4 + 8 + 5, 3)
    np.testing.assert_array_equal(both[:, 0, 0, 0], [0, 7, 7, 7])
    assert (both[:, :2, 12:] == 9).all()
    assert (both[:, 2, 12:] == 255).all()  # below the lower one
    assert (both[:, :, 4:12] == 255).all()


def filmed() -> Demonstrations:
    plain = made_up(*CARTPOLE)
    frames = np.arange(5 * 4 * 6 * 3).reshape(5, 4, 6, 3).astype(np.uint8)
    return Demonstrations(**{**vars(plain), "film": frames})


def test_a_film_is_kept_in_the_file_and_shown_beside_the_agents(tmp_path) -> None:
    filmed().save(tmp_path / "mine.npz")
    kept = load(str(tmp_path / "mine.npz"), episodes=2)
    np.testing.assert_array_equal(kept.film, filmed().film)
    assert kept.fingerprint == made_up(*CARTPOLE).limited(2).fingerprint
    found = Evaluation(videos={"eval/episode": np.zeros([3, 4, 6, 3], np.uint8)})
    Expert(kept, *CARTPOLE).report(found)
    np.testing.assert_array_equal(found.videos[imitation_expert.FILMS][:, :, :6], kept.film)
    Expert(made_up(*CARTPOLE), *CARTPOLE).report(other := Evaluation(videos=dict(found.videos)))
    assert other.videos.keys() == found.videos.keys()

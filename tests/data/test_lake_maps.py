"""Maps of frozen lakes: by hand, and beside Gymnasium's own generator and judge."""

from pathlib import Path

import numpy as np
import pytest
from gymnasium.envs.toy_text import frozen_lake

from sparring.data import lake_maps
from sparring.errors import UserError


def board(*rows: str) -> np.ndarray:
    return np.array([[lake_maps.LETTERS.index(letter) for letter in row] for row in rows], np.uint8)


BY_HAND = {  # and the length of the shortest way
    ("SG", "HH"): 1,
    ("SF", "HG"): 2,
    ("SH", "HG"): -1,  # a corner is no way
    ("SHG", "FHF", "FFF"): 6,
    ("FFF", "FGF", "FFS"): 2,
    ("FF", "FG"): -1,
    ("SF", "FF"): -1,
    ("SS", "FG"): 1,  # from the nearer of two
}


def test_the_shortest_way_by_hand() -> None:
    for rows, length in BY_HAND.items():
        assert lake_maps.distances(board(*rows)[np.newaxis]).tolist() == [length], rows
    one_of_each = [rows for rows in BY_HAND if "".join(rows).count("S") == 1]
    squares = np.stack([board(*rows) for rows in BY_HAND if len(rows) == 2])
    # All squares of two but those without a way, a start, a goal, and with two starts
    assert lake_maps.is_valid(squares).tolist() == [True, True, False, False, False, False]
    assert len(one_of_each) == 6
    assert lake_maps.distances(squares[:0]).tolist() == []


def test_gymnasium_judges_alike() -> None:
    generator = np.random.default_rng(0)
    boards = generator.choice([1, 2], size=(400, 5, 5), p=[0.6, 0.4]).astype(np.uint8)
    boards[:, 0, 0] = lake_maps.START
    boards[:, -1, -1] = lake_maps.GOAL
    theirs = [frozen_lake.is_valid([list(row) for row in rows], 5) for rows in text(boards)]
    assert 20 < sum(theirs) < 380
    assert lake_maps.is_valid(boards).tolist() == theirs


def text(maps: np.ndarray) -> list[list[str]]:
    return lake_maps.to_rows(maps).tolist()


def test_random_maps_are_gymnasiums() -> None:
    ours = lake_maps.random_maps(4000, 3, seed=0)
    np.testing.assert_array_equal(ours[:10], lake_maps.random_maps(10, 3, seed=0))
    assert (ours != lake_maps.random_maps(4000, 3, seed=1)).any()
    assert lake_maps.is_valid(ours).all()
    theirs = [tuple(frozen_lake.generate_random_map(3, 0.8, seed=i)) for i in range(1000)]
    mine = [tuple(rows) for rows in text(ours)]
    # The map without a hole: 0.8^7 of those drawn, more of those kept; standard error 0.015
    empty = ("SFF", "FFF", "FFG")
    assert mine.count(empty) / 4000 == pytest.approx(theirs.count(empty) / 1000, abs=0.06)
    assert set(theirs) <= set(mine)


def test_start_and_goal_lie_anywhere_and_apart() -> None:
    maps = lake_maps.random_maps(4000, 3, seed=0, frozen=1.0, corners=False)
    assert lake_maps.has_one_of_each(maps).all()
    for letter in (lake_maps.START, lake_maps.GOAL):
        shares = (maps == letter).mean(axis=0)
        # A ninth in each cell, standard error 0.005
        np.testing.assert_allclose(shares, 1.0 / 9.0, atol=0.02)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    maps = np.stack([board("SFH", "FFG"), board("HHS", "GFF")])
    assert text(maps) == [["SFH", "FFG"], ["HHS", "GFF"]]
    np.savez(tmp_path / "maps.npz", maps=lake_maps.to_rows(maps))
    np.testing.assert_array_equal(lake_maps.load(tmp_path / "maps.npz"), maps)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": np.zeros(3)}, "no array `maps`"),
        ({"maps": np.zeros([2, 3])}, "text"),
        ({"maps": np.array([["SF", "FG"], ["SX", "FG"]])}, "letters S, F, H and G"),
        ({"maps": np.array([["SFF", "FG"]])}, "rows of equal length"),
        ({"maps": np.array([["SF", "FG"]], dtype=object)}, "cannot be read"),
    ],
)
def test_other_files_are_refused_in_a_line(tmp_path: Path, arrays: dict, said: str) -> None:
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(UserError, match=said):
        lake_maps.load(tmp_path / "other.npz")
    with pytest.raises(UserError, match="cannot be read"):
        lake_maps.load(tmp_path / "none.npz")


def test_what_allows_no_map_is_refused() -> None:
    with pytest.raises(UserError, match="2 to 64"):
        lake_maps.random_maps(1, 1, 0)
    with pytest.raises(UserError, match="above 0"):
        lake_maps.random_maps(1, 4, 0, frozen=0.0)
    with pytest.raises(UserError, match="none can be solved"):
        lake_maps.random_maps(1, 40, 0, frozen=0.05)


def test_a_grid_holds_as_many_as_fit() -> None:
    maps = np.stack([board("SF", "HG")] * 3)
    drawn = lake_maps.pictures(maps, side=4)
    assert drawn.shape == (3, 8, 8, 3)
    assert drawn[0, 6, 2].tolist() == [40, 70, 130]  # the hole, at the bottom left
    # Two columns of 2 * 12 + 8 pixels, two rows of which the last place is empty
    picture = lake_maps.grid(maps, columns=2)
    assert picture.shape == (64, 64, 3)
    assert not picture[32:, 32:].any()

"""Renamed options of config groups: old spellings work, and are reported."""

import pytest

from sparring.config.composer import Composer
from sparring.config.old_spellings import OPTIONS, renamed
from sparring.errors import UserError


def test_every_new_spelling_is_an_option_and_no_old_one_is():
    composer = Composer("rl")
    for (group, old), new in OPTIONS.items():
        assert new in composer.options(group)
        assert old not in composer.options(group)


def test_an_old_spelling_is_replaced_and_reported(capsys):
    assert renamed(["env=catch,memory", "memory=lstm", "env.size=3"]) == [
        "env=catch,recall",
        "memory=lstm",
        "env.size=3",
    ]
    said = "sparring: env=memory is env=recall now. The old spelling still works.\n"
    assert capsys.readouterr().err == said


def test_an_old_spelling_in_a_file_is_named_with_the_new_one():
    with pytest.raises(
        UserError, match=r"env=memory: no such option\. env=memory is env=recall now"
    ):
        Composer("rl").compose(["env=memory"])

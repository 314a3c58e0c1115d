"""`sparring export`: its flags."""

import pytest

from sparring.cli import export
from sparring.errors import UserError
from sparring.export.model_versions import NAME


@pytest.mark.parametrize(
    ("run", "name"),
    [
        ("runs/lander", "lander"),
        ("runs/s/agent=dqn,env=catch,seed=0", "agent-dqn-env-catch-seed-0"),
        ("runs/-odd name-", "odd-name"),
        ("runs/" + "x" * 100, "x" * 64),
    ],
)
def test_a_runs_name_becomes_one_that_a_model_can_have(run: str, name: str) -> None:
    assert export._parse([run]).name == name
    assert NAME.fullmatch(name)


def test_a_name_that_was_given_is_held_to_the_signs() -> None:
    with pytest.raises(UserError, match="--name a=b: give letters"):
        export._parse(["runs/a", "--name", "a=b"])

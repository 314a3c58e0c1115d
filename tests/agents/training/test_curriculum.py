"""Parameters of an environment follow the progress of a run, on the host and compiled, from each
episode's beginning on.
"""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import tensorflow as tf

from sparring.envs.compiled.classic_control import CartPole, Pendulum
from sparring.envs.compiled.curriculum import Curriculum
from sparring.envs.compiled.frame_stack import Stacked
from sparring.envs.compiled.rescaled import Rescaled
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.envs.testing.check import check_environment
from sparring.errors import UserError
from sparring.storage.checkpoints import Checkpoints
from sparring.storage.variable_names import named_variables
from sparring.xla import random
from tests.helpers.small_trainers import off_policy

RISE = {"start": 10.0, "end": 50.0, "fraction": 0.5}  # at a quarter of the run: 30


def on_host() -> Gymnasium:
    return Gymnasium("CartPole-v1", curriculum={"force_mag": RISE})


def compiled() -> Stacked:
    return Stacked(Curriculum(CartPole(), {"force_mag": RISE}), 2)


def test_a_compiled_episode_keeps_the_value_it_began_with() -> None:
    """Two pendulums hang at angle 1, speed 0: the speed becomes 1.5 g sin(1) 0.05."""
    outer = Curriculum(Pendulum(), {"g": {"start": 2.0, "end": 6.0}})
    keys = random.members(random.stream(0, "environment"), 2)
    state = outer.at(0.25).initial(keys)  # g 3
    still = tf.ones([2]), tf.zeros([2])
    state = (type(state[0])(*still), state[1])
    after, _, _ = outer.at(0.75).transition(state, tf.zeros([2, 1]), keys)
    np.testing.assert_allclose(after[0][1], 2 * [1.5 * 3.0 * np.sin(1.0) * 0.05], rtol=1e-6)
    assert outer.at(0.75).initial(keys)[1]["g"].numpy().tolist() == [5.0, 5.0]
    assert outer.initial(keys)[1]["g"].numpy().tolist() == [6.0, 6.0]  # for evaluation
    check_environment(outer, steps=30)


def test_an_episode_of_the_host_keeps_the_value_it_began_with_and_is_put_back_with_it() -> None:
    environment = on_host()
    vector = environment.vector(1, seed=3)
    vector.follow(0.25)
    own = gymnasium.make("CartPole-v1")
    own.unwrapped.force_mag = 30.0  # type: ignore[attr-defined]
    np.testing.assert_array_equal(vector.reset()[0], own.reset(seed=3)[0])
    vector.follow(0.5)  # says nothing to the episode that runs
    for _ in range(3):
        step = vector.step(np.array([1]))
        np.testing.assert_array_equal(step.observation[0], own.step(1)[0])
    again = environment.vector(1, seed=3)
    assert again.restore(vector.snapshot()) == []
    later = [v.step(np.array([1])).observation for v in (vector, again)]
    np.testing.assert_array_equal(*later)
    vector.close()
    again.close()


@pytest.mark.long
@pytest.mark.parametrize("environment", [on_host, compiled])
def test_a_run_follows_its_schedule_and_resumes_on_it(environment: Any, tmp_path: Path) -> None:
    whole = off_policy(environment())
    whole.train(128)
    assert whole.scalars()["schedule/env_force_mag"] == 30.0
    Checkpoints(tmp_path).save(whole.step, whole.checkpoint, {"trainer": whole.host_state()})
    whole.train(128)
    other = off_policy(environment())
    saved = Checkpoints(tmp_path).restore(other.checkpoint)
    assert other.load_host_state(saved.host["trainer"]) == []
    other.train(128)
    assert whole.scalars()["schedule/env_force_mag"] == 50.0
    theirs = named_variables(whole.checkpoint)
    for name, variable in named_variables(other.checkpoint).items():
        if not name.startswith("means"):
            np.testing.assert_array_equal(variable, theirs[name], err_msg=name)
    # A push of 10 changes the cart's speed by 0.02 * 10 / 1.1 and a little more, one of 45 by 0.82
    speed = whole.replay.observation.numpy()[:256, 1].reshape(-1, 2)
    goes_on = ~whole.replay.last.numpy()[:254].reshape(-1, 2)
    change = np.where(goes_on, np.abs(np.diff(speed, axis=0)), 0.0)
    assert 0.18 < change[:5].max() < 0.25
    assert 0.8 < change[-30:].max() < 1.25
    whole.close()
    other.close()


def test_a_curriculum_in_another_follows_too() -> None:
    """At a quarter of the run, the pendulum's gravity is 4 and what is around it has 30."""
    inner = Rescaled(Curriculum(Pendulum(), {"g": {"start": 2.0, "end": 10.0}}))
    inner.reach = 1.0
    outer = Curriculum(inner, {"reach": RISE})
    keys = random.members(random.stream(0, "environment"), 1)
    (_, within), parameters = outer.at(0.25).initial(keys)
    assert within["g"].numpy().tolist() == [4.0]
    assert parameters["reach"].numpy().tolist() == [30.0]
    assert sorted(outer.curriculum) == ["g", "reach"]


@pytest.mark.parametrize(
    ("curriculum", "said"),
    [
        ({"force": 1.0}, r"env.curriculum.force: CartPole\w* has no number of that name. "),
        ({"gravitas": 1.0}, r"env.curriculum.gravitas: .* Did you mean gravity\?"),
        ({"name": 1.0}, r"env.curriculum.name: .* no number"),
        ({"gravity": {"from": 1.0}}, r"env.curriculum.gravity=.*: give a number, or numbers start"),
        ({"gravity": {"start": "low", "end": 1}}, r"env.curriculum.gravity=.*: give a number, or"),
        (
            {"gravity": "low"},
            r"env.curriculum.gravity=low: give a number, or numbers start and end",
        ),
        ({"gravity": {"start": 1, "end": 2, "fraction": 0}}, "fraction=0"),
    ],
)
@pytest.mark.parametrize(
    "make",
    [
        lambda given: Gymnasium("CartPole-v1", curriculum=given),
        lambda given: Curriculum(CartPole(), given),
    ],
    ids=["host", "compiled"],
)
def test_what_is_no_number_of_an_environment_or_no_course_is_refused(
    make: Any, curriculum: Any, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        make(curriculum)


def test_an_environment_with_a_vectorised_version_of_its_own_has_no_parameters() -> None:
    with pytest.raises(UserError, match=r"env.curriculum sets attributes of single environments"):
        Gymnasium("CartPole-v1", curriculum={"gravity": 1}, vectorization="vector_entry_point")

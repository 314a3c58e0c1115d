"""Settings of actors: mistakes that are refused before a run begins, and the options for Ray."""

import importlib.util

import pytest

from sparring.agents.actors.settings import Ray, connect
from sparring.config import old_spellings
from sparring.config.composer import Composer
from sparring.config.validation import Command
from sparring.envs.compiled.classic_control import CartPole
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.errors import UserError

HOST = ["env=gymnasium", "env.id=CartPole-v1", "run.name=x"]


def test_what_cannot_be_shared_is_refused() -> None:
    with pytest.raises(UserError, match="is for environments of the host"):
        Ray(count=2).check(CartPole(), 4)
    with pytest.raises(UserError, match=r"actors.count=3 does not divide trainer.num_envs=4"):
        Ray(count=3).check(Gymnasium("CartPole-v1"), 4)


def test_without_ray_it_is_said_what_to_install_before_tensorflow_loads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "ray" else found(name)
    )
    with pytest.raises(UserError, match=r"pip install 'sparring\[actors\]'"):
        Command(Composer("rl"), [*HOST, "actors=ray"], multirun=False)
    Command(Composer("rl"), HOST, multirun=False)


def test_the_old_spelling_of_the_option_still_works(capsys: pytest.CaptureFixture[str]) -> None:
    new = old_spellings.renamed([*HOST, "actors=reverb", "actors.count=4"])
    assert "actors=reverb is actors=ray now" in capsys.readouterr().err
    cfg = Command(Composer("rl"), new, multirun=False).cfg
    assert cfg.actors._target_ == "sparring.agents.actors.settings.Ray"
    assert cfg.actors.count == 4


def test_an_actor_has_one_core_and_no_gpu_and_what_the_user_says_besides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert Ray().actor_options() == {
        "num_cpus": 1,
        "max_restarts": -1,
        "max_task_retries": 2,
        "runtime_env": {"env_vars": {"CUDA_VISIBLE_DEVICES": "-1", "OMP_NUM_THREADS": "1"}},
    }
    mine = {"num_cpus": 2, "runtime_env": {"pip": ["x"], "env_vars": {"OMP_NUM_THREADS": "2"}}}
    chosen = Ray(options=mine).actor_options()
    assert chosen["num_cpus"] == 2
    assert chosen["runtime_env"]["pip"] == ["x"]
    assert chosen["runtime_env"]["env_vars"] == {
        "CUDA_VISIBLE_DEVICES": "-1",
        "OMP_NUM_THREADS": "2",
    }
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=here")  # of which both compute the same
    assert Ray().actor_options()["runtime_env"]["env_vars"]["XLA_FLAGS"] == "--xla_dump_to=here"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense"])
def test_an_address_where_no_ray_is_is_told_at_once(address: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(UserError, match=rf"actors.address={address}: Ray is not there"):
        connect(Ray(address=address))

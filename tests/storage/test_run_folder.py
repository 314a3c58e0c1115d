"""A run's folder: what is written of it, when, and what a mistake made later leaves as it was."""

import json
import math
import subprocess
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sparring.errors import UserError
from sparring.storage import provenance
from sparring.storage.run_folder import RunFolder
from sparring.training import tensorboard_page
from sparring.training.outcome import Outcome

CONFIG = {
    "seed": 3,
    "run": {"steps": 100, "resume": "auto"},
    "hparams": ["agent", "trainer"],
    "check_first": ["env"],
    "packages": [],
    "env": {"_target_": "sparring.envs.gymnasium_bridge.bridge.Gymnasium", "id": "CartPole-v1"},
    "agent": {
        "_target_": "sparring.agents.ppo.PPO",
        "_partial_": True,
        "clip": {"_target_": "Linear", "end": 0},
        "kl": None,
    },
    "trainer": {
        "_target_": "sparring.agents.training.on_policy.OnPolicyTrainer",
        "epochs": 4,
        "agent": "${agent}",
        "seed": "${seed}",
    },
}


def config(**changes):
    return OmegaConf.merge(CONFIG, OmegaConf.from_dotlist([f"{k}={v}" for k, v in changes.items()]))


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def test_hparams_are_settings_without_seeds_and_what_they_refer_to():
    settings = {
        "agent.clip._target_": "Linear",
        "agent.clip.end": 0,
        "agent.kl": None,
        "trainer._target_": "OnPolicyTrainer",
        "trainer.epochs": 4,
    }
    chosen = tensorboard_page.hparams(config(), {"agent": "ppo", "env": "gymnasium"})
    assert chosen == {**settings, "agent": "ppo", "env": "CartPole-v1"}
    # Without choices, as from Python, classes are called by their names
    plain = config(**{"env.id": "null", "env._target_": "my.envs.Maze"})
    assert tensorboard_page.hparams(plain, {}) == {
        **settings,
        "agent._target_": "PPO",
        "env": "Maze",
    }
    assert tensorboard_page.hparams(plain, {"env": "maze"})["env"] == "maze"


def test_the_metric_of_the_table_is_named_like_the_objective():
    assert list(tensorboard_page.final_metric("eval/episode_return")) == ["final/episode_return"]
    assert list(tensorboard_page.final_metric("gan/fid")) == ["final/gan/fid"]


def test_a_folder_keeps_to_its_config(tmp_path):
    RunFolder(tmp_path / "a").begin(config())
    # These may change
    RunFolder(tmp_path / "a").begin(config(**{"run.steps": 500, "packages": "[my_lab]"}))
    assert RunFolder(tmp_path / "a").read_config().run.steps == 500
    changed = OmegaConf.merge(config(**{"agent.kl": 0.1, "seed": 4}), {"extra": 1})
    with pytest.raises(UserError) as error:
        RunFolder(tmp_path / "a").begin(changed)
    assert str(error.value).splitlines()[1:-1] == [
        "  agent.kl: None -> 0.1",
        "  extra: absent -> 1",
        "  seed: 3 -> 4",
    ]
    assert str(error.value).endswith(f"run.name=NAME run.resume={tmp_path / 'a'}")
    assert RunFolder(tmp_path / "a").read_config().seed == 3
    with pytest.raises(UserError, match=r"run\.resume=never, and .* holds a run already"):
        RunFolder(tmp_path / "a").begin(config(**{"run.resume": "never"}))


def test_a_sweep_is_called_one_and_its_runs_are_offered(tmp_path):
    with pytest.raises(UserError, match=r"not a run's folder: it has no config.yaml"):
        RunFolder(tmp_path).read_config()
    for seed in (1, 0):
        RunFolder(tmp_path / f"seed={seed}").begin(config())
    offered = f"of 2 runs. Name one of them, such as {tmp_path / 'seed=0'}."
    with pytest.raises(UserError, match="it is a folder") as error:
        RunFolder(tmp_path).read_config()
    assert str(error.value).endswith(offered)
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(UserError, match="it is a sweep") as error:
        RunFolder(tmp_path).read_config()
    assert RunFolder(tmp_path / "seed=0").read_config().seed == 3  # as was advised


def test_two_processes_do_not_share_a_folder(tmp_path):
    refused = pytest.raises(UserError, match="another process is training there")
    with RunFolder(tmp_path).logged(), refused, RunFolder(tmp_path).logged():
        pytest.fail("let in")
    with RunFolder(tmp_path).logged():  # free again
        pass


def finish(folder: Path, ended: Outcome) -> None:
    run = RunFolder(folder)
    run.outcome = ended
    run.objective = "score"
    run.finish()


def outcome(**more) -> Outcome:
    return Outcome(
        "finished", 100, {"score": 1.5}, {"score": 2.5, "step": 50}, {"imports": 1.23456}, **more
    )


def test_a_result_is_json_and_says_what_it_ran_on(tmp_path):
    ended = outcome()
    ended.final |= {"loss": math.nan, "kl": math.inf}
    finish(tmp_path, ended)
    # NaN is not JSON
    found = json.loads((tmp_path / "result.json").read_text(), parse_constant=pytest.fail)
    assert found["objective"] == {"name": "score", "value": 1.5}
    assert found["final"] == {"score": 1.5, "loss": "nan", "kl": "inf"}
    assert found["seconds"] == {"imports": 1.235}
    assert {"numpy", "tensorflow", "gymnasium"} <= set(found["versions"])
    assert found["machine"]["cpus"] >= 1


@pytest.mark.parametrize(
    ("error", "status", "said", "code"),
    [
        (UserError("the wheel came off"), "failed", "the wheel came off", 1),
        (ZeroDivisionError("by nothing"), "failed", "by nothing", None),
        (KeyboardInterrupt(), "stopped", "KeyboardInterrupt", None),
    ],
)
def test_what_breaks_a_run_is_in_its_result_with_what_is_known(tmp_path, error, status, said, code):
    run = RunFolder(tmp_path)
    with run.logged(), pytest.raises(type(error)), run.recording_failures():  # noqa: PT012
        run.outcome = outcome()
        run.objective = "score"
        raise error
    assert (result(tmp_path)["status"], result(tmp_path)["message"]) == (status, said)
    assert (result(tmp_path)["step"], result(tmp_path)["seconds"]) == (100, {"imports": 1.235})
    assert getattr(error, "exit_code", None) == code
    assert ("ZeroDivisionError" in (tmp_path / "run.log").read_text()) == isinstance(
        error, ZeroDivisionError
    )


def test_a_mistake_before_training_leaves_a_good_result_and_replaces_a_failed_one(tmp_path):
    def mistaken(said: str) -> UserError:
        with pytest.raises(UserError) as error, RunFolder(tmp_path).recording_failures():
            raise UserError(said)
        return error.value

    assert mistaken("first").exit_code == 2
    assert (result(tmp_path)["status"], result(tmp_path)["message"]) == ("failed", "first")
    mistaken("second")
    assert result(tmp_path)["message"] == "second"
    finish(tmp_path, outcome())
    mistaken("third")
    assert (result(tmp_path)["status"], result(tmp_path)["message"]) == ("finished", "")


def test_evaluations_are_added_and_outlast_the_next_result(tmp_path):
    finish(tmp_path, outcome())
    before = result(tmp_path)
    RunFolder(tmp_path).add_evaluation({"episodes": 1})
    RunFolder(tmp_path).add_evaluation({"episodes": 2})
    assert result(tmp_path) == before | {"evaluations": [{"episodes": 1}, {"episodes": 2}]}
    finish(tmp_path, outcome(message="again"))
    assert result(tmp_path)["evaluations"] == [{"episodes": 1}, {"episodes": 2}]
    assert result(tmp_path)["message"] == "again"


def test_the_commit_is_the_working_folder_s(tmp_path, monkeypatch):
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
        return subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    monkeypatch.chdir(tmp_path)
    assert provenance.versions()["commit"] is None
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    head = git("rev-parse", "HEAD").strip()
    assert provenance.versions()["commit"] == head
    (tmp_path / "changed").touch()
    assert provenance.versions()["commit"] == f"{head}-dirty"


@pytest.mark.parametrize("text", ["{", "[]", "nonsense"])
def test_a_damaged_result_is_named_and_never_read_as_nothing(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(UserError, match=r"result\.json cannot be read .*mend it or delete it"):
        RunFolder(tmp_path).read_result()


@pytest.mark.parametrize(
    ("text", "said"), [("a: [1", "cannot be read"), ("- 1", "is not a run's config")]
)
def test_a_damaged_config_is_named(tmp_path, text, said):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        RunFolder(tmp_path).read_config()

"""`sparring evaluate`: the model of a run measured again, and the finding added to the run's
result.
"""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from sparring.cli import evaluate
from sparring.config.composer import Composer
from sparring.errors import UserError
from sparring.storage.checkpoints import Checkpoints
from sparring.training.experiment import train
from tests.helpers import runs

pytestmark = pytest.mark.long

SMALL = (
    "agent=ppo",
    "env=gymnasium",
    "env.id=tests.helpers.rollouts:toy/Coin-v0",
    "packages=[tests]",
    "compile=eager",
    "network.units=[4]",
    "agent.normalize_observations=true",
    "trainer.num_envs=2",
    "trainer.rollout_steps=8",
    "trainer.epochs=2",
    "trainer.minibatches=1",
    "trainer.evaluation.episodes=3",
    "optimizer.learning_rate=0.05",
    "run.steps=96",
    "run.log_every=32",
    "run.evaluate_every=32",
    "run.checkpoint_every=32",
    "run.keep=3",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "a"
    cfg = Composer("rl").compose([*SMALL, f"run.dir={folder.parent}", f"run.name={folder.name}"])
    train(OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]), folder, time.time())
    return folder


def test_the_same_episodes_have_the_returns_they_had_when_it_was_trained(run: Path) -> None:
    before = runs.result(run)
    said = evaluate.evaluate(run, episodes=3, checkpoint="latest", seed=None)
    result = runs.result(run)
    entry = result["evaluations"][-1]
    assert entry["scalars"] == {
        tag: v for tag, v in before["final"].items() if tag.startswith("eval/")
    }
    assert (entry["checkpoint"], entry["step"], entry["episodes"], entry["seed"]) == (
        "latest",
        96,
        3,
        0,
    )
    assert {**result, "evaluations": None} == {
        **before,
        "evaluations": None,
    }  # the rest is as the run left it
    assert said[0] == f"{run}: latest checkpoint, step 96, 3 episodes"
    assert f"  eval/episode_return {entry['scalars']['eval/episode_return']:.4g}" in said


def test_a_gan_is_scored_as_in_its_run_unless_fewer_samples_are_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "g"
    settings = ["data=ring", "compile=eager", "debug=smoke_gan", "run.steps=128"]
    cfg = Composer("gan").compose([*settings, f"run.dir={tmp_path}", "run.name=g"])
    train(OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]), folder, time.time())
    before = runs.result(folder)
    said = evaluate.evaluate(folder, episodes=None, checkpoint="latest", seed=None)
    entry = runs.result(folder)["evaluations"][-1]
    scores = {tag: before["final"][tag] for tag in entry["scalars"]}
    assert entry["scalars"] == scores
    assert entry["episodes"] is None
    assert (
        said[0]
        == f"{folder}: latest checkpoint, step 128, the samples of the run's own evaluations"
    )
    said = evaluate.evaluate(folder, episodes=50, checkpoint="latest", seed=None)
    assert said[0].endswith("step 128, 50 samples at most")
    assert "not to be compared with the run's own scores" in said[1]
    said = evaluate.evaluate(folder, episodes=10**6, checkpoint="latest", seed=None)
    assert said[1].startswith("  gan/")
    assert (folder / "samples" / "generated.png").is_file()


def test_a_run_of_several_processes_is_evaluated_in_one(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "a"
    shutil.copytree(run, copied)
    cfg = OmegaConf.load(copied / "config.yaml")
    cfg.strategy = {
        "_target_": "sparring.distribute.strategies.multi_worker",
        "workers": 2,
        "seconds": 60,
    }
    OmegaConf.save(cfg, copied / "config.yaml")
    evaluate.evaluate(copied, episodes=3, checkpoint="latest", seed=None)
    assert runs.result(copied)["evaluations"][-1]["scalars"] == {
        tag: v for tag, v in runs.result(run)["final"].items() if tag.startswith("eval/")
    }


def test_the_best_model_is_evaluated_as_at_its_own_step(run: Path) -> None:
    best = runs.result(run)["best"]
    evaluate.evaluate(run, episodes=3, checkpoint="best", seed=None)
    entry = runs.result(run)["evaluations"][-1]
    assert entry["step"] == best["step"]
    assert entry["scalars"] == {tag: value for tag, value in best.items() if tag != "step"}


def test_another_seed_and_more_episodes_are_other_episodes_and_each_finding_is_kept(
    run: Path,
) -> None:
    known = len(runs.result(run).get("evaluations", []))
    evaluate.evaluate(run, episodes=3, checkpoint="latest", seed=None)
    evaluate.evaluate(run, episodes=3, checkpoint="latest", seed=1)
    evaluate.evaluate(run, episodes=40, checkpoint="latest", seed=None)
    found = runs.result(run)["evaluations"][known:]
    assert [(entry["seed"], entry["episodes"]) for entry in found] == [(0, 3), (1, 3), (0, 40)]
    assert len({entry["scalars"]["eval/episode_return"] for entry in found}) == 3


def test_evaluating_leaves_checkpoints_config_and_curves_alone(run: Path) -> None:
    def files() -> dict[Path, tuple[int, int]]:
        found = [p for p in run.rglob("*") if p.is_file() and p.name != "result.json"]
        return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in found}

    before = files()
    evaluate.evaluate(run, episodes=1, checkpoint="best", seed=3)
    assert files() == before


def test_a_damaged_newest_checkpoint_is_stepped_over(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    newest = runs.newest(run)
    data = next(newest.glob("tensors.data*"))
    whole = data.read_bytes()
    data.write_bytes(whole[:-1])
    try:
        evaluate.evaluate(run, episodes=1, checkpoint="latest", seed=None)
    finally:
        data.write_bytes(whole)
    assert runs.result(run)["evaluations"][-1]["step"] == 64
    assert any("is damaged" in message for message in caplog.messages)
    assert Checkpoints(run / "checkpoints", 9).steps() == [32, 64, 96]


def test_the_command_says_what_it_found_and_refuses_what_cannot_be(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([str(run), "--episodes", "2", "--seed", "5"]) == 0
    assert "latest checkpoint, step 96, 2 episodes" in capsys.readouterr().out
    assert runs.result(run)["evaluations"][-1]["seed"] == 5
    with pytest.raises(UserError, match=r"--episodes 0: at least one"):
        evaluate.main([str(run), "--episodes", "0"])
    with pytest.raises(UserError, match=r"is not a run's folder: it has no config.yaml"):
        evaluate.main([str(tmp_path)])
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    with pytest.raises(UserError, match=r"holds no checkpoint under best/"):
        evaluate.main([str(tmp_path), "--checkpoint", "best"])


def test_a_run_that_names_what_no_config_may_name_is_not_built(run: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        (run / "config.yaml")
        .read_text()
        .replace("sparring.agents.ppo.PPO", "os.system")
        .replace("sparring.envs.gymnasium_bridge.bridge", "os")
    )
    with pytest.raises(UserError, match=r"a config may name"):
        evaluate.evaluate(tmp_path, episodes=1, checkpoint="latest", seed=None)


def test_the_models_weights_are_those_of_the_checkpoint(run: Path) -> None:
    """Another checkpoint acts otherwise: the finding is not that of fresh weights."""
    found = {}
    for step in (32, 96):
        moved = [p for p in (run / "checkpoints").glob("step_*") if int(p.name[5:]) > step]
        for path in moved:
            path.rename(run / path.name)
        try:
            evaluate.evaluate(run, episodes=20, checkpoint="latest", seed=7)
        finally:
            for path in moved:
                (run / path.name).rename(path)
        found[step] = runs.result(run)["evaluations"][-1]
    assert [entry["step"] for entry in found.values()] == [32, 96]
    returns = [entry["scalars"]["eval/episode_return"] for entry in found.values()]
    assert returns[0] != returns[1]
    assert np.all(np.isfinite(returns))


def test_overrides_evaluate_under_other_settings_and_are_recorded(run: Path) -> None:
    def evaluated(*overrides: str) -> Any:
        evaluate.evaluate(run, 2, checkpoint="latest", seed=5, overrides=overrides)
        return runs.result(run)["evaluations"][-1]

    short = evaluated("env.max_episode_steps=3")
    assert short["scalars"]["eval/episode_length"] == 3.0
    assert short["overrides"] == ["env.max_episode_steps=3"]
    assert "overrides" not in evaluated()
    with pytest.raises(
        UserError,
        match=r"env.max_episodesteps: the run's config has no such key. Did you mean env.max_ep",
    ):
        evaluated("env.max_episodesteps=3")
    with pytest.raises(UserError, match="no viable alternative"):
        evaluated("a=[")

"""Exported policies compute, without any of our code, what the trainer computes: to the bit."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from omegaconf import OmegaConf

from sparring.cli import export, main, setup
from sparring.config.composer import Composer
from sparring.errors import UserError
from sparring.export import tflite_onnx
from sparring.export.saved_model import Small
from sparring.export.signatures import DEFAULT, Signature, on_arrays
from sparring.gans.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from sparring.gans.networks.pair import Pair
from sparring.storage import manifest
from sparring.storage.run_folder import RunFolder
from sparring.training.experiment import build, train
from sparring.xla.compilation import CachedCall
from tests.helpers.toy_gans import Images, make

pytestmark = pytest.mark.long

SMALL = (
    "trainer.num_envs=2",
    "trainer.rollout_steps=8",
    "network.units=[8]",
    "compile=graph",
    "run.steps=64",
    "run.log_every=64",
    "run.evaluate_every=64",
    "run.checkpoint_every=64",
    "trainer.evaluation.video_every=0",
    "trainer.evaluation.episodes=2",
)
PPO = (
    "agent=ppo",
    "trainer.epochs=2",
    "trainer.minibatches=1",
    "agent.normalize_observations=true",
)
OTHERS = """
import sys
import numpy as np

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("sparring", "tf_agents", "tensorflow_probability"):
            raise ImportError(f"{name} is not to be had here")

sys.meta_path.insert(0, Blocked())
import tensorflow as tf

loaded = tf.saved_model.load(sys.argv[1])
found = {}
with np.load(sys.argv[2]) as given:
    for key in given:
        signature, _, name = key.partition("/")
        found.setdefault(signature, {})[name] = tf.constant(given[key])
outputs = {}
for s, x in found.items():
    outputs |= {f"{s}/{n}": v.numpy() for n, v in loaded.signatures[s](**x).items()}
np.savez(sys.argv[3], **outputs)
"""


def composed(*overrides: str) -> Any:
    setup.prepare()
    cfg = Composer("rl").compose([*SMALL, "run.name=x", *overrides])
    return OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "cart"
    train(
        composed(*PPO, "env=cartpole", f"run.dir={folder.parent}", f"run.name={folder.name}"),
        folder,
        time.time(),
    )
    return folder


def elsewhere(
    folder: Path, inputs: dict[str, dict[str, np.ndarray]], place: Path
) -> dict[str, np.ndarray]:
    """Outputs of a SavedModel in a fresh process, in which none of our packages can be imported:
    signature/output.
    """
    np.savez(
        place / "in.npz", **{f"{s}/{n}": a for s, given in inputs.items() for n, a in given.items()}
    )
    arguments = [str(folder), str(place / "in.npz"), str(place / "out.npz")]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-c", OTHERS, *arguments],
        check=True,
        cwd=place,
        env=environment,
        timeout=300,
    )
    with np.load(place / "out.npz") as found:
        return dict(found)


def test_a_process_without_our_code_acts_as_the_trainer_to_the_bit(
    run: Path, tmp_path: Path
) -> None:
    folder = export.export(run, "cart", tmp_path / "models", "latest")
    observation = np.random.default_rng(0).normal(size=(37, 4)).astype(np.float32) * 3
    seed = np.arange(37, dtype=np.int64)
    seen = {"observation": observation}
    asked = {
        "greedy": seen,
        DEFAULT: seen,
        "sampled": {**seen, "seed": seed},
        "scores": seen,
        "value": seen,
    }
    found = elsewhere(folder, asked, tmp_path)

    from sparring.training.trained_model import restored

    with restored(run, RunFolder(run).read_config(), "latest") as (trainer, step):
        assert step == 64
        agent = trainer.agent
        # The normaliser has something to do
        assert float(agent.observation_normalizer.moments.count) > 0
        expected = {
            "greedy/action": np.asarray(CachedCall(agent.act_greedy, "graph")(observation)),
            "value/value": np.asarray(CachedCall(agent.value, "graph")(observation)),
            "scores/logits": np.asarray(CachedCall(agent.scores, "graph")(observation)["logits"]),
        }
        again = on_arrays(trainer.export().signatures["sampled"].trace())(asked["sampled"])
    expected |= {
        f"{DEFAULT}/action": expected["greedy/action"],
        "scores/action": expected["greedy/action"],
    }
    expected["sampled/action"] = again["action"]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
        assert found[name].dtype == value.dtype
    assert 0 < found["greedy/action"].mean() < 1 or 0 < found["sampled/action"].mean() < 1


def test_a_policy_that_remembers_takes_its_state_and_gives_the_next(tmp_path: Path) -> None:
    trainer = build(composed(*PPO, "env=recall", "memory=lstm", "agent.memory.units=[5]"))
    trainer.train(64)
    exports = trainer.export()
    agent = trainer.agent
    assert list(exports.signatures) == ["greedy", "sampled", "scores", "value", "initial_state"]
    exports.module().save(str(tmp_path / "recall"))
    observation = np.random.default_rng(0).uniform(size=(7, 5)).astype(np.float32)
    met = exports.samples(400)
    assert (met["observation"].shape, met["state"].shape) == ((400, 5), (400, 20))
    assert not met["state"][:16].any()  # the first steps of 16 environments
    assert met["state"][16:32].any(axis=1).all()
    seen = {"observation": observation, "state": met["state"][20:27]}
    asked: dict[str, Any] = dict.fromkeys(("greedy", "scores", "value"), seen)
    asked |= {
        "sampled": {**seen, "seed": np.arange(7)},
        "initial_state": {"observation": observation},
    }
    found = elsewhere(tmp_path / "recall", asked, tmp_path)
    shown, after = CachedCall(agent.see, "graph")(observation, seen["state"])
    expected = {
        "greedy/action": np.asarray(CachedCall(agent.act_greedy, "graph")(shown)),
        "scores/logits": np.asarray(CachedCall(agent.scores, "graph")(shown)["logits"]),
        "value/value": np.asarray(CachedCall(agent.value, "graph")(shown)),
        "initial_state/state": np.zeros((7, 20), np.float32),
        **{f"{name}/state": np.asarray(after) for name in ("greedy", "scores", "value", "sampled")},
    }
    assert found.keys() == expected.keys() | {"sampled/action", "scores/action"}
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    small = Small(("float32", "int8"), True, 300, 2)
    report = tflite_onnx.write(tmp_path / "small", exports, exports.module(), small)
    for kind in ("float32", "onnx"):  # whose files differ in the order of sums alone
        assert report["formats"][kind]["error"].keys() == {"logits", "state"}
        assert report["formats"][kind]["error"]["state"]["largest"] < 1e-5
        assert report["formats"][kind]["scores"] == report["original"]["scores"]


def test_the_manifest_says_where_it_is_from_and_vouches_for_every_file(
    run: Path, tmp_path: Path
) -> None:
    folder = export.export(run, "cart", tmp_path, "best")
    content = manifest.check(folder)
    assert (content["name"], content["version"], content["run"]["step"]) == ("cart", 1, 64)
    assert content["config"]["agent"]["_target_"] == "sparring.agents.ppo.PPO"
    assert content["metrics"]["final"]["eval/episode_return"] > 0
    assert content["run"]["versions"]["tensorflow"] == tf.__version__
    sampled = content["signatures"]["sampled"]
    assert sampled["inputs"] == {
        "observation": {"dtype": "float32", "shape": [None, 4]},
        "seed": {"dtype": "int64", "shape": [None]},
    }
    assert sampled["outputs"] == {"action": {"dtype": "int32", "shape": [None]}}
    on_disk = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {
        manifest.MANIFEST
    }
    assert content["files"].keys() == on_disk
    (folder / "variables/variables.index").write_bytes(b"x")
    with pytest.raises(manifest.DamagedError, match=r"variables\.index"):
        manifest.check(folder)


def test_versions_count_up_and_nothing_half_done_is_left(run: Path, tmp_path: Path) -> None:
    (tmp_path / "cart" / "7").mkdir(parents=True)
    assert export.export(run, "cart", tmp_path, "latest").name == "8"
    assert export.export(run, "cart", tmp_path, "latest").name == "9"
    assert sorted(p.name for p in (tmp_path / "cart").iterdir()) == ["7", "8", "9"]


def test_the_command_names_the_model_after_the_run_and_refuses_what_cannot_be(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main([str(run), "--out", str(tmp_path / "models")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == str(tmp_path / "models" / "cart" / "1")
    assert printed[1].startswith("the best model, of step ")
    assert RunFolder(run).read_result()["best"]["step"] == int(printed[1].rpartition(" ")[2])
    with pytest.raises(UserError, match="give letters"):
        export.main([str(run), "--name", "../cart"])
    with pytest.raises(UserError, match=r"has no config\.yaml"):
        export.main([str(tmp_path)])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="no folder can be made there"):
        export.main([str(run), "--out", str(tmp_path / "file")])
    assert "export" in main.COMMANDS


def exported(*overrides: str) -> dict[str, Any]:
    trainer = build(composed(*overrides))
    trainer.train(64)
    return {name: on_arrays(s.trace()) for name, s in trainer.export().signatures.items()}


def test_a_sampled_action_follows_from_its_own_seed_and_by_the_policys_odds() -> None:
    functions = exported(*PPO, "env=cartpole")
    observation = np.array([[0.5, -0.5, 0.1, 0.2]], np.float32)
    seeds = np.arange(20_000, dtype=np.int64)
    many = functions["sampled"](
        {"observation": observation.repeat(len(seeds), axis=0), "seed": seeds}
    )["action"]
    logits = functions["scores"]({"observation": observation})["logits"][0]
    odds = np.exp(logits) / np.exp(logits).sum()
    # Four standard deviations of a fair coin
    assert abs(many.mean() - odds[1]) < 4 * 0.5 / np.sqrt(len(seeds))
    few = functions["sampled"](
        {"observation": observation.repeat(3, axis=0), "seed": seeds[[7, 5, 7]]}
    )["action"]
    np.testing.assert_array_equal(few, many[[7, 5, 7]])


def test_vectors_are_clipped_to_the_environments_bounds() -> None:
    functions = exported(*PPO, "env=pendulum", "agent.log_std=3.0")
    observation = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    action = functions["sampled"]({"observation": observation, "seed": np.arange(50)})["action"]
    assert action.shape == (50, 1)
    assert np.abs(action).max() == 2.0  # Pendulum's torque; the spread is 20
    scores = functions["scores"]({"observation": observation})
    np.testing.assert_array_equal(scores["action"], np.clip(scores["mean"], -2.0, 2.0))


def test_q_values_choose_and_exploration_is_that_of_the_end_of_the_run() -> None:
    functions = exported(
        "agent=dqn", "env=cartpole", "trainer.learning_starts=16", "agent.epsilon=0.5"
    )
    observation = np.random.default_rng(0).normal(size=(4000, 4)).astype(np.float32)
    scores = functions["scores"]({"observation": observation})
    np.testing.assert_array_equal(scores["action"], scores["q_values"].argmax(axis=1))
    sampled = functions["sampled"]({"observation": observation, "seed": np.arange(4000)})["action"]
    # Half at random, half of these by chance the same
    assert abs(np.mean(sampled != scores["action"]) - 0.25) < 0.03
    assert "value" not in functions


DCGAN = Pair(
    lambda **k: DCGANGenerator(width=2, **k), lambda **k: DCGANDiscriminator(width=2, **k), latent=4
)


def test_a_generator_and_its_discriminator_leave_alike(tmp_path: Path) -> None:
    trainer = make(Images((8, 8, 1)), network=DCGAN, conditional=True, batch_size=8)
    trainer.train(64)
    exports = trainer.export()
    module = exports.module()
    module.save(str(tmp_path / "gan"))
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(5, 4)).astype(np.float32)
    labels = np.array([0, 1, 2, 0, 1])
    seeds = {"seed": np.arange(5), "labels": labels}
    images = rng.uniform(-1, 1, (5, 8, 8, 1)).astype(np.float32)
    asked = {
        "generate": {"latents": latents, "labels": labels},
        "sampled": seeds,
        "png": seeds,
        "discriminate": {"examples": images, "labels": labels},
    }
    found = elsewhere_with_strings(tmp_path, asked)
    np.testing.assert_array_equal(
        found["generate/examples"], CachedCall(trainer.sampler.generate, "graph")(latents, labels)
    )
    judged = CachedCall(trainer.game.logits, "graph")(images, labels)
    np.testing.assert_array_equal(found["discriminate/logits"], judged)
    pictures = module.function("png")(seeds)["image_bytes"]
    for i, example in enumerate(found["sampled/examples"]):
        pixels = tf.io.decode_png(pictures[i]).numpy()
        np.testing.assert_array_equal(
            pixels, np.clip(np.rint((example + 1) * 127.5), 0, 255).astype(np.uint8)
        )
    assert len({bytes(p) for p in pictures}) == 5


def elsewhere_with_strings(
    place: Path, asked: dict[str, dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    return elsewhere(
        place / "gan", {name: given for name, given in asked.items() if name != "png"}, place
    )


def test_what_is_written_names_no_class_of_ours(run: Path, tmp_path: Path) -> None:
    folder = export.export(run, "cart", tmp_path, "latest")
    graph = (folder / "saved_model.pb").read_bytes()
    assert b"tf_agents" not in graph
    assert b"keras_metadata" not in graph
    assert not (folder / "keras_metadata.pb").exists()
    assert json.loads((folder / manifest.MANIFEST).read_text())["exporter"]["versions"]["tf-agents"]


def test_a_signature_is_traced_once_for_every_batch() -> None:
    traced = []

    def call(x: tf.Tensor) -> dict[str, tf.Tensor]:
        traced.append(x.shape)
        return {"y": 2.0 * x}

    function = on_arrays(Signature(call, {"x": tf.TensorSpec([2], tf.float32)}, "Doubles.").trace())
    for batch in (1, 3, 5):
        np.testing.assert_array_equal(
            function({"x": np.ones((batch, 2), np.float32)})["y"], np.full((batch, 2), 2.0)
        )
    assert [shape.as_list() for shape in traced] == [[None, 2]]

"""A killed run continues as if nothing had happened: weights, slots, replay, environments, random
numbers, curves.
"""

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.helpers import demonstrations, runs

pytestmark = pytest.mark.long

PPO = (
    "rl",
    "agent=ppo",
    "env=gymnasium",
    "env.id=CartPole-v1",
    "compile=graph",
    "trainer.num_envs=2",
    "trainer.rollout_steps=16",
    "trainer.minibatches=4",
    "trainer.epochs=2",
    "agent.normalize_observations=true",
    "trainer.normalize_rewards=true",
    "run.steps=6000",
    "run.log_every=300",
    "run.evaluate_every=2000",
    "run.checkpoint_every=400",
    "trainer.evaluation.episodes=2",
    "trainer.evaluation.video_every=0",
)
DQN = (
    "rl",
    "agent=dqn",
    "env=gymnasium",
    "env.id=Acrobot-v1",
    "compile=graph",
    "trainer.num_envs=2",
    "trainer.capacity=1500",
    "trainer.learning_starts=200",
    "trainer.n_step=3",
    "env.max_episode_steps=60",
    "run.steps=6000",
    "run.log_every=300",
    "run.evaluate_every=2000",
    "run.checkpoint_every=400",
    "trainer.evaluation.episodes=2",
    "trainer.evaluation.video_every=0",
)

COMPILED = (
    "rl",
    "agent=dqn",
    "env=cartpole",
    "trainer.num_envs=2",
    "trainer.capacity=1500",
    "trainer.updates=8",
    "run.steps=24000",
    "run.log_every=600",
    "run.evaluate_every=8000",
    "run.checkpoint_every=1600",
    "trainer.evaluation.episodes=2",
    "trainer.evaluation.video_every=0",
)

# Whose state is the penalty's coefficient, the target network and the statistics, a memory, and a
# matrix of noise that goes on over the end of a rollout
OPTIONS = (
    "rl",
    "agent=ppo_kl",
    "env=pendulum",
    "memory=lstm",
    "agent.memory.units=[8]",
    "head=state_dependent_noise",
    "agent.noise_steps=24",
    "agent.target_kl=0.05",
    "intrinsic=rnd",
    "compile=graph",
    "trainer.num_envs=2",
    "trainer.rollout_steps=16",
    "trainer.minibatches=2",
    "trainer.epochs=2",
    "run.steps=6000",
    "run.log_every=300",
    "run.evaluate_every=2000",
    "run.checkpoint_every=400",
    "trainer.evaluation.episodes=2",
    "trainer.evaluation.video_every=0",
)

# Whose state is a memory stored in replay, priorities, a lagging memory and noise from keys
REPLAYED = (
    "rl",
    "agent=r2d2",
    "env=recall",
    "agent.memory.units=[8]",
    "agent.burn_in=2",
    "agent.unroll=4",
    "agent.head={_target_:sparring.agents.networks.q_heads.DuelingHead,_partial_:true,units:[8],std:0.5}",
    "agent.target_period=50",
    "compile=graph",
    "trainer.capacity=1500",
    "trainer.learning_starts=200",
    "run.steps=12000",
    "run.log_every=600",
    "run.evaluate_every=4000",
    "run.checkpoint_every=800",
    "trainer.evaluation.episodes=2",
    "trainer.evaluation.video_every=0",
)

SAC = (
    "rl",
    "agent=sac",
    "env=pendulum",
    "network.units=[16]",
    "agent.policy_period=2",
    "trainer.num_envs=2",
    "trainer.batch_size=32",
    "trainer.capacity=1500",
    "run.steps=12000",
    "run.log_every=600",
    "run.evaluate_every=4000",
    "run.checkpoint_every=800",
    "trainer.evaluation.episodes=2",
    "trainer.evaluation.video_every=0",
)

CROSSQ = (
    *(SAC[0], "agent=crossq", *SAC[2:4]),
    "agent.critics.network.units=[32]",
    "agent.critics.network.dropout=0.1",
    *SAC[4:],
)

GAN = (
    "gan",
    "data=digits",
    "loss=hinge",
    "penalty=r1",
    "metric=swd",
    "compile=graph",
    "network.generator.width=8",
    "network.discriminator.width=8",
    "network.discriminator.normalization=spectral",
    "augmentation=instance_noise",
    "game.batch_size=32",
    "game.n_critic=2",
    "trainer.evaluation.pictures_every=0",
    "run.steps=48000",
    "run.log_every=1600",
    "run.evaluate_every=16000",
    "run.checkpoint_every=3200",
)


# Whose state is a discriminator's too, with its optimizer and its singular vectors
IMITATION = (
    "imitation",
    f"expert={demonstrations.file('cartpole')}",
    "method=airl",
    "discriminator=mlp_spectral",
    "discriminator.units=[8]",
    "penalty=r1",
    "reward_source.batch_size=32",
    "compile=graph",
    "trainer.num_envs=2",
    "trainer.rollout_steps=16",
    "trainer.minibatches=2",
    "trainer.epochs=2",
    "run.steps=24000",
    "run.log_every=600",
    "run.evaluate_every=8000",
    "run.checkpoint_every=1600",
    "trainer.evaluation.episodes=2",
    "trainer.evaluation.video_every=0",
)


def finish(folder: Path, *arguments: str) -> None:
    done = runs.sparring(folder, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def killed_while_running(
    folder: Path, arguments: tuple[str, ...], kills: int, draw: random.Random
) -> int:
    """Start the run b again and again, killing it a random while after it began to train; how many
    kills hit.
    """
    hits = 0
    for _ in range(kills):
        process = runs.start(folder, *arguments)
        log = folder / "runs" / "b" / "run.log"
        before = time.monotonic()
        size = log.stat().st_size if log.exists() else -1
        while process.poll() is None and (log.stat().st_size if log.exists() else -1) <= size:
            time.sleep(0.05)
            assert time.monotonic() - before < 120, (folder / "output.txt").read_text()
        try:
            process.wait(draw.uniform(0.0, 3.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            hits += 1
    return hits


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(PPO, marks=pytest.mark.either),
        pytest.param(DQN, marks=pytest.mark.slow),
        COMPILED,
        pytest.param(OPTIONS, marks=pytest.mark.slow),
        pytest.param(REPLAYED, marks=pytest.mark.slow),
        pytest.param(SAC, marks=pytest.mark.slow),
        pytest.param(CROSSQ, marks=pytest.mark.slow),
        pytest.param(GAN, marks=pytest.mark.either),
        pytest.param(IMITATION, marks=pytest.mark.slow),
    ],
    ids=["ppo", "dqn", "compiled", "options", "replayed", "sac", "crossq", "gan", "imitation"],
)
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """Arguments, and a folder with runs/a: the run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("resume")
    finish(folder, *request.param, "run.name=a")
    return request.param, folder


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_stopped_by_sigterm_then_killed_at_random_moments_ends_as_if_undisturbed(
    reference: tuple, kills: int
) -> None:
    arguments, folder = reference
    for leftover in (folder / "runs").glob("b*"):
        leftover.rename(leftover.with_name(f"old-{leftover.name}"))
    disturbed = (*arguments, "run.name=b")
    run = folder / "runs" / "b"
    process = runs.start(folder, *disturbed)
    while process.poll() is None and not list((run / "checkpoints").glob("step_*")):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, (folder / "output.txt").read_text()
    assert runs.result(run)["status"] == "stopped"
    assert runs.result(run)["step"] < runs.result(folder / "runs" / "a")["step"]
    hits = killed_while_running(folder, disturbed, kills, random.Random(3))
    assert hits >= 1, "every run ended before its kill"
    finish(folder, *disturbed)
    assert runs.result(run)["status"] == "finished"
    runs.assert_equal(folder / "runs" / "a", run)


def test_a_changed_config_is_refused_with_the_difference(reference: tuple) -> None:
    arguments, folder = reference
    key, before, after = ("game.pack", 1, 2) if arguments is GAN else ("agent.discount", 0.99, 0.5)
    done = runs.sparring(folder, *arguments, "run.name=a", f"{key}={after}")
    assert done.returncode != 0
    assert f"{key}: {before} -> {after}" in done.stderr
    assert "Traceback" not in done.stderr

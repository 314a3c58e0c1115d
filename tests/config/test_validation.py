"""Every mistake in a command or a config: one line that names the mend, exit code 2, nothing left
behind.
"""

import re
from pathlib import Path

import pytest

from sparring.cli import setup
from sparring.config.composer import Composer
from sparring.config.validation import Command, check_composed
from sparring.errors import UserError
from tests.helpers.commands import Ended, ended

pytestmark = pytest.mark.long

LINEAR = "{_target_:sparring.optim.schedules.Linear,start:%s,end:%s}"
MINE = ["--config-dir", "conf"]
GYM = ["env=gymnasium", "env.id=CartPole-v1"]  # whose mistakes show without TensorFlow
YAMLS = {
    "conf/agent/broken.yaml": "_target_: sparring.agents.dqn.DQN\n  discount: [0.9\n",
    "conf/agent/lost.yaml": "# @package _global_\ndefaults: [dqn, _self_]\nagent: {discount: "
    "'${nowhere}'}\n",
    "conf/agent/fails.yaml": "# @package _global_\ndefaults: [dqn, _self_]\nagent: {_target_: "
    "my_lab.fails.Agent}\n",
    "conf/run/short.yaml": "dir: runs\nname: a\n",
    "conf/run/typo.yaml": "defaults: [default, _self_]\nstep: 100\n",
    "conf/experiment/typo.yaml": "# @package _global_\nsede: 5\n",
    "conf/experiment/range.yaml": "# @package _global_\ntrainer: {epochs: 2.5}\n",
    "conf/experiment/option.yaml": "# @package _global_\ndefaults:\n  - override /agent: dqm\n",
    "conf/experiment/sweep.yaml": "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: "
    "{seed: '0,-7'}}}\n",
    "hidden/agent/ppo.yaml": "_target_: sparring.agents.ppo.PPO\n",
    "my_lab/__init__.py": "",
    "my_lab/fails.py": "from os.path import *\nraise RuntimeError('broken of its own')\n",
}

# What is typed, and what the line must say. None of these imports TensorFlow.
EARLY = {
    "mistyped key": (
        ["agent.discont=0.9"],
        r"agent.discont: no such key. Did you mean agent.discount\?",
    ),
    "key of another part": (["agent.num_envs=2"], r"Did you mean trainer.num_envs\?"),
    "key of a mapping in an option's place": (
        ["env={environment: {}}"],
        r": env.environment: no such key. `--cfg job` lists them all.$",
    ),
    "parameter without a plus": (
        ["env=gymnasium", "env.id=CartPole-v1", "env.curriculum.gravity=3"],
        r"env.curriculum.gravity: no such key. .*; \+env.curriculum.gravity=... adds one.",
    ),
    "mistyped group": (["agnt=ppo"], r"agnt: no such key. Did you mean agent\?"),
    "actions the agent does not take": (
        ["-m", "agent=ppo,double_dqn", "env=gymnasium", "env.id=Pendulum-v1"],
        "This agent chooses one of a list .*use agent=ppo",
    ),
    "memory the agent cannot have": (
        ["agent=dqn", "memory=lstm", "env=gymnasium", "env.id=CartPole-v1"],
        "memory: its options are for agent=ppo.* agent=r2d2, with agent.memory.cell=gru",
    ),
    "head of other actions": (
        ["env=gymnasium", "env.id=CartPole-v1", "head=beta"],
        r"agent.head: BetaHead is of a Box of vectors, and the actions are Discrete\(2\)",
    ),
    "noise that cannot stay": (
        ["env=gymnasium", "env.id=Pendulum-v1", "head=squashed", "agent.noise_steps=4"],
        "agent.noise_steps=4: only noise that depends on the state",
    ),
    "several steps of A2C": (
        ["agent=a2c", "env=gymnasium", "env.id=CartPole-v1", "trainer.epochs=4"],
        "trainer.epochs=4: A2C takes one step on each rollout",
    ),
    "mistyped group that is off": (["memry=lstm"], r"memry: no such key. Did you mean memory\?"),
    "settings of a callback that is none": (
        ["+callbacks.mine.margin=3"],
        r"callbacks.mine has settings \(margin\), but nothing of that name is chosen",
    ),
    "episodes without steps": (
        ["trainer.evaluation.max_episode_steps=0"],
        "trainer.evaluation.max_episode_steps must be a whole number at least 1",
    ),
    "group for a key": (
        ["agent=pp0"],
        r"agent=pp0: no such option. Did you mean ppo\? There are: a2c",
    ),
    "unknown + group": (
        ["+experment=x"],
        r"\+experment: no config group.*experiment\?.*are: actors, agent",
    ),
    "null for a group": (
        ["agent=null"],
        "agent=null: agent is the name of an option. There are: a2c, c51, crossq, double_dqn, ",
    ),
    "number for a group": (
        ["prune=0.8"],
        "prune=0.8: prune is the name of an option. There are: magnitude",
    ),
    "option of hydra": (
        ["hydra/launcher=slurm"],
        "hydra/launcher=slurm: no such option. There are: basic",
    ),
    "no value": (["seed"], r"seed: what is it to be\? Write seed=VALUE\."),
    "unreadable": (["run.steps=[1"], r"run.steps=\[1: cannot be read .*quote"),
    "unknown flag": (["--fast"], "unrecognized arguments: --fast"),
    "flag that is not for use": (["--config-path=x"], "--config-path .* --config-dir"),
    "flags that exclude each other": (
        ["-m", "--cfg", "job"],
        "--multirun, --cfg and --info are for one at a time",
    ),
    "flag without its other": (["--resolve"], "--resolve is for --cfg"),
    "text for a number": (["run.steps=many"], "run.steps=many: run.steps is a whole number"),
    "fraction for a count": (["run.steps=1.5"], "run.steps=1.5: run.steps is a whole number"),
    "null for a number": (["run.steps=null"], "run.steps=null: run.steps is a whole number"),
    "null for a rate": (
        ["optimizer.learning_rate=null"],
        "optimizer.learning_rate must be a number above 0",
    ),
    "number for a switch": (
        ["trainer.normalize_rewards=3"],
        "trainer.normalize_rewards is true or false",
    ),
    "number for a list": (["network.units=64"], r"network.units is a list, such as \[64,64\]"),
    "text in a list": (["network.units=[64,a]"], "network.units is a list"),
    "number for a mapping": (["trainer.evaluation=5"], "trainer.evaluation is a mapping"),
    "list for text": (["compile=[xla]"], "compile is text"),
    "text for what may be null": (["run.target=best"], "run.target=best: run.target is a number"),
    "forced to a wrong type": (["++run.steps=x"], "run.steps is a whole number"),
    "range": (
        ["optimizer.learning_rate=-1"],
        "optimizer.learning_rate=-1: .* must be a number above 0",
    ),
    "range, closed": (["agent.discount=1.01"], "agent.discount=1.01: .* at least 0 and at most 1"),
    "nan": (["optimizer.learning_rate=nan"], "optimizer.learning_rate=nan: .* above 0"),
    "infinity": (["agent.value_coefficient=inf"], "agent.value_coefficient=inf: "),
    "range in a schedule": (
        [f"agent.clip={LINEAR % (-0.2, 0)}"],
        "agent.clip.start=-0.2: .* at least 0",
    ),
    "nan in a schedule": (
        [f"optimizer.learning_rate={LINEAR % (1, 'nan')}"],
        "optimizer.learning_rate.end=nan: ",
    ),
    "schedule for a plain number": (
        [f"agent.discount={LINEAR % (1, 0)}"],
        "agent.discount.*must be a number at least",
    ),
    "left open": (["env=gymnasium"], "env.id is left open: give it a value, env.id=..."),
    "interpolation to nowhere": (
        ["run.name=${nowhere}"],
        r"run.name=\$\{nowhere\}: .*'nowhere' not found",
    ),
    "missing variable": (
        ["agent.clip=${oc.env:NOT_SET}"],
        r"agent.clip=\$\{oc.env:NOT_SET\}: .*'NOT_SET' not found",
    ),
    "key that is not read": (["+sede=5"], r"\+sede: no config group|sede: nothing reads"),
    "mapping that is not read": (
        ["+trainr.epochs=5"],
        r"trainr: nothing reads this key. Did you mean trainer\?",
    ),
    "key of run": (["+run.stepz=5"], r"run.stepz: no such key. Did you mean run.steps\?"),
    "a part deleted": (
        ["~agent"],
        r"trainer.agent=\$\{agent\}: Interpolation key 'agent' not found",
    ),
    "several values without -m": (
        ["agent=dqn,ppo"],
        "agent=dqn,ppo: several values are a sweep: add -m",
    ),
    "a range without -m": (["seed=range(0,3)"], "several values are a sweep: add -m"),
    "unknown environment": (
        ["env=gymnasium", "env.id=CartPol-v1"],
        r"env.id=CartPol-v1 is not .*CartPole-v1",
    ),
    "argument of an environment": (
        [*GYM, "+env.gravity=1"],
        "env.gravity: sparring.envs.gymnasium_bridge.bridge.Gymnasium takes no gravity",
    ),
    "argument of the environment's own": ([*GYM, "+env.kwargs.gravty=1"], "gravty"),
    "package that is not allowed": (
        ["agent._target_=os.system"],
        r"=os.system: a config may.*packages=\[os\]",
    ),
    "hidden in a list": (
        [*GYM, "env.wrappers=[{_target_:shutil.rmtree}]"],
        "env.wrappers.0._target_=shutil.rmtree",
    ),
    "beside what is allowed": (["agent._target_=tensorflow.io.gfile.rmtree"], "a config may name"),
    "no such package": (
        ["packages=[no_such]", "agent._target_=no_such.A"],
        "there is no package no_such; install it",
    ),
    "misspelt class": (
        ["agent._target_=sparring.agents.ppo.PPOO"],
        r"sparring.agents.ppo has no PPOO. Did you mean PPO\?",
    ),
    "misspelt name in a library": (
        [*GYM, "env.wrappers=[{_target_:gymnasium.wrappers.TimeAware}]"],
        "gymnasium.wrappers has no TimeAware. Did you",
    ),
    "a GAN's network for an agent": (
        ["network=dcgan"],
        "network=dcgan is for another kind of run. There are: cnn, cnn_layer_norm",
    ),
    "misspelt module": (["agent._target_=sparring.agents.pppo.PPO"], "sparring.agents has no pppo"),
    "a module for a class": (
        ["agent._target_=sparring.agents.ppo"],
        "names a module; add the name of a class",
    ),
    "no such run to go on from": (
        ["run.resume=runs/gone"],
        r"run.resume=runs/gone: no run's folder",
    ),
    "no such run to start from": (
        ["run.warm_start=runs/gone"],
        r"run.warm_start=runs/gone: no run's folder",
    ),
    "no such config folder": (
        ["--config-dir", "gone"],
        "--config-dir gone: there is no such folder",
    ),
    "no such config package": (
        ["hydra.searchpath=[pkg://gone.conf]"],
        "pkg://gone.conf: there are no configs there",
    ),
    "bad YAML": ([*MINE, "agent=broken"], r"conf/agent/broken.yaml, line 2: not YAML"),
    "interpolation in a YAML": (
        [*MINE, "agent=lost"],
        r"agent.discount=\$\{nowhere\}: .*'nowhere' not found",
    ),
    "module of mine that fails": (
        [*MINE, "agent=fails"],
        "importing it failed: RuntimeError: broken .*fails.py, line",
    ),
    "run of mine that is not whole": ([*MINE, "run=short"], "run.steps is missing: build on ours"),
    "mistyped key in a YAML": (
        [*MINE, "run=typo"],
        r"run.step: no such key. Did you mean run.steps\?",
    ),
    "mistyped key at a YAML's top": (
        [*MINE, "experiment=typo"],
        r"sede: nothing reads.*Did you mean seed\?",
    ),
    "wrong number in a YAML": ([*MINE, "experiment=range"], "trainer.epochs=2.5: .* whole number"),
    "unknown option in a YAML": (
        [*MINE, "experiment=option"],
        r"agent=dqm: no such option. Did you mean dqn\?",
    ),
    "sweep in a YAML": ([*MINE, "experiment=sweep"], "seed=-7: seed must be"),
    "a file behind one of ours": (
        ["--config-dir", "hidden"],
        "hidden/agent/ppo.yaml would be passed over.*another",
    ),
    "one bad value of a sweep": (
        ["-m", "seed=0,1,-1,3"],
        "seed=-1: seed must be a whole number at least 0",
    ),
    "one bad option of a sweep": (["-m", "agent=ppo,dqn,pqo"], "agent=pqo: no such option"),
    "a key that one option lacks": (
        ["-m", "agent=ppo,dqn", "agent.clip=0.1,0.2"],
        "agent.clip: no such key",
    ),
    "the end of a range": (["-m", "agent.discount=range(0,3,0.5)"], "agent.discount=2.5: "),
    "one bad environment of a sweep": (
        ["-m", "env=gymnasium", "env.id=CartPole-v1,Nope-v0"],
        "env.id=Nope-v0 is not a registered",
    ),
    "empty range": (["-m", "seed=range(0,0)"], r"seed=range\(0,0\): nothing to run, it is empty"),
    "sweep without steps": (["-m", "agent.discount=interval(0,1)"], "a sweep without steps"),
    "wrong while asking": (["--cfg", "job", "agent=pp0"], "agent=pp0: no such option"),
}
OTHER = {
    "no such command": (
        ["rll"],
        "sparring rll: no such command. There are: rl, gan, imitation, supervised, train, check, "
        "evaluate",
    ),
    "train without a config": (["train"], "sparring train needs your config: --config-name"),
    "train from no such config": (
        ["train", "--config-name", "mine"],
        "There is no config mine. There are: .*rl",
    ),
    "evaluate nothing": (["evaluate"], "the following arguments are required: run"),
    "evaluate no run": (["evaluate", "conf"], "conf is not a run's folder: it has no config.yaml"),
    "evaluate no episodes": (["evaluate", "conf", "--episodes", "0"], "--episodes 0: at least one"),
    "evaluate some episodes": (
        ["evaluate", "conf", "--episodes", "x"],
        "argument --episodes: invalid int value: 'x'",
    ),
    "completion of a strange shell": (
        ["--shell-completion", "tcsh"],
        "--shell-completion takes bash",
    ),
}

# These are found in what only imports with TensorFlow, or by it; still before it does any work.
LATE = {
    "a network that sees no such thing": (
        ["network=cnn"],
        r"network=cnn looks at boards \[H, W, C\]",
    ),
    "a backbone of boards": (
        [
            "env=breakout",
            "network=pretrained",
            "agent.normalize_observations=false",
            "network.weights=null",
        ],
        r"backbone=MobileNetV2 looks at three colours, .* 4 channels: .*take network=cnn\.$",
    ),
    "argument of an agent": (
        ["+agent.discont=1"],
        r"agent.discont: .*PPO takes no discont. Did you mean discount\?",
    ),
    "argument of an optimizer": (
        ["+optimizer.rate=1"],
        r"optimizer.rate: sparring.optim.optimizer.Scheduled takes no rate",
    ),
    "argument of a library's": (
        ["+optimizer.optimizer.lr_=1"],
        "optimizer: .*Adam refuses its arguments: .*lr_",
    ),
    "class of a library": (
        ["optimizer.optimizer._target_=tensorflow.keras.optimizers.Adamm"],
        r"has no Adamm. Did you mean Adam\?",
    ),
    "argument that is missing": (
        ["agent.clip={_target_:sparring.optim.schedules.Linear,start:0.2}"],
        "agent.clip: sparring.optim.schedules.Linear needs end: give",
    ),
    "argument that is missing later": (
        ["network._target_=tensorflow.keras.layers.Dense", "~network.units"],
        "network: tensorflow.keras.layers.Dense needs units: give network.units a value",
    ),
    "an agent that can't act there": (
        ["agent=dqn", "env=pendulum"],
        "This agent chooses one of a list .*use agent=ppo",
    ),
    "a mode that is not there": (
        ["compile=fast"],
        "compile=fast: choose one of auto, xla, graph, eager",
    ),
    "numbers that don't fit together": (
        ["trainer.minibatches=7"],
        "trainer.minibatches=7 does not divide",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mistakes")
    for name, text in YAMLS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def early(folder) -> dict[str, Ended]:
    commands = [["rl", *arguments] for arguments, _ in EARLY.values()] + [
        arguments for arguments, _ in OTHER.values()
    ]
    return dict(zip([*EARLY, *OTHER], ended(folder, commands), strict=True))


@pytest.fixture(scope="module")
def late(folder) -> dict[str, Ended]:
    return dict(
        zip(
            LATE, ended(folder, [["rl", *arguments] for arguments, _ in LATE.values()]), strict=True
        )
    )


def check(found: Ended, expected: str) -> None:
    assert found.error.startswith("sparring: ")
    assert re.search(expected, found.error), found.error
    assert found.error.count("\n") == 1, found.error
    assert found.error.endswith("\n")
    assert (found.code, found.out, found.left) == (2, "", [])


@pytest.mark.parametrize("name", [*EARLY, *OTHER])
def test_a_mistake_is_one_line_before_tensorflow_is_imported(early, name):
    check(early[name], (EARLY | OTHER)[name][1])
    assert not early[name].tensorflow


@pytest.mark.parametrize("name", LATE)
def test_a_mistake_that_building_finds_is_one_line_too(late, name):
    check(late[name], LATE[name][1])


def test_settings_of_something_that_is_not_chosen() -> None:
    setup.prepare()
    composer = Composer("gan")
    with pytest.raises(
        UserError, match=r"penalty.r1 has settings \(gamma\), but nothing .* out with '~penalty.r1'"
    ):
        check_composed(composer.compose(["experiment=gan_grid", "penalty=none"]))
    without = composer.compose(
        ["experiment=gan_grid", "penalty=none", "~penalty.r1", "~penalty.r2"]
    )
    check_composed(without)
    assert dict(without.penalty) == {}


def test_evaluation_can_be_turned_off() -> None:
    cfg = Command(Composer("rl"), ["trainer.evaluation.episodes=0"], multirun=False).cfg
    assert cfg.trainer.evaluation.episodes == 0


def test_arguments_of_another_class_are_not_held_to_the_default_s_types() -> None:
    """`network.units` is a list of MLP's, a number of Dense's."""
    typed = ["network._target_=tensorflow.keras.layers.Dense", "network.units=8"]
    assert Command(Composer("rl"), typed, multirun=False).cfg.network["units"] == 8
    with pytest.raises(UserError, match=r"agent.clip is a number"):
        Command(Composer("rl"), [*typed, "agent.clip=x"], multirun=False)


def test_a_key_of_swept_options_is_checked_against_them_and_left_to_the_jobs() -> None:
    """PPO, the default agent, has no learning_starts: Hydra must not see it in the sweep itself."""
    setup.prepare()
    typed = ["agent=dqn,double_dqn", "trainer.learning_starts=16", "seed=0,1", "run.steps=1e3"]
    found = Command(Composer("rl"), typed, multirun=True)
    assert found.overrides == [
        "agent=dqn,double_dqn",
        "trainer.learning_starts=choice(16)",
        "seed=0,1",
        "run.steps=1000",
    ]
    assert found.swept == ["agent", "seed"]
    assert (found.jobs, found.cfg.trainer.learning_starts) == (4, 16)
    with pytest.raises(UserError, match=r"trainer.learning_starts: no such key"):
        Command(Composer("rl"), ["agent=dqn,ppo", "trainer.learning_starts=16"], multirun=True)


@pytest.mark.parametrize(
    "text", ["note=first", "agent.nope=3", "env.kwargs.g=3", "run.note=a", "trainer.note=a"]
)
def test_advice_to_add_a_key_works_where_it_is_given(text: str) -> None:
    setup.prepare()
    gym = ["env=gymnasium", "env.id=Pendulum-v1"]
    key, _, value = text.partition("=")
    with pytest.raises(UserError) as error:
        Command(Composer("rl"), [*gym, text], multirun=False)
    advised = f"+{key}=..." in str(error.value)
    assert advised == key.startswith("env.kwargs.")
    if advised:
        Command(Composer("rl"), [*gym, f"+{key}={value}"], multirun=False)


def test_a_folder_of_runs_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "afile").touch()
    found = ended(
        tmp_path,
        [
            ["rl", "debug=smoke", "run.dir=afile", "run.name=a"],
            ["rl", "-m", "debug=smoke", "run.dir=afile/deeper", "run.name=a", "seed=0,1"],
        ],
    )
    for one in found:
        assert one.code == 2
        assert re.fullmatch(
            r"sparring: run\.dir=\S+: \S+afile is a file, not a folder\.\n", one.error
        )

"""From the command to the gradient lie few functions in few files: the stack is read where a
gradient is taken.
"""

import json
import subprocess
import sys

import pytest

from tests.helpers.runs import ROOT

pytestmark = pytest.mark.long

MOST_FILES = 7
MOST_FRAMES = 14
# Runs a command in this process and prints the longest stack of first-party frames (file, function)
# at a call of `GradientTape.gradient` for a network's weights: an inner tape, as penalties have, is
# part of the loss and not of the way to it.
PROGRAM = """
import contextlib, json, os, sys, traceback
from pathlib import Path
import sparring
import tensorflow as tf
from sparring.cli import main

root = str(Path(sparring.__file__).resolve().parents[1])
stacks = []
gradient = tf.GradientTape.gradient

def recorded(tape, target, sources, *arguments, **settings):
    if isinstance(sources, list) and all(isinstance(s, tf.Variable) for s in sources):
        frames = [f for f in traceback.extract_stack()[:-1] if f.filename.startswith(root)]
        frames = [f for f in frames if "/.venv" not in f.filename]
        stacks.append([(os.path.relpath(f.filename, root), f.name) for f in frames])
    return gradient(tape, target, sources, *arguments, **settings)

tf.GradientTape.gradient = recorded
sys.argv = ["sparring", *sys.argv[1:]]
with contextlib.redirect_stdout(sys.stderr):
    try:
        main.main()
    except SystemExit as end:
        assert not end.code, end.code
print(json.dumps(max(stacks, key=len)))
"""
QUICK = ["trainer.evaluation.episodes=1", "trainer.evaluation.video_every=0"]


@pytest.mark.parametrize(
    ("command", "last"),
    [
        (["rl", "agent=ppo", "env=cartpole", "run.steps=512", *QUICK], "agents/ppo.py"),
        (["gan", "data=ring", "run.steps=64"], "gans/adversarial_step.py"),
    ],
    ids=["ppo", "gan"],
)
def test_a_gradient_is_few_frames_from_main(tmp_path, command, last):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command, "run.name=a"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    frames = json.loads(done.stdout.splitlines()[-1])
    shown = "\n".join(f"{file} {name}" for file, name in frames)
    assert frames[0] == ["research/cli/main.py", "main"], shown
    assert frames[-1][0] == last, shown
    assert len(frames) <= MOST_FRAMES, shown
    assert len({file for file, _ in frames}) <= MOST_FILES, shown
    assert (ROOT / last).is_file()

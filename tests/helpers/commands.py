"""Many command lines in one process, each as if typed alone: what it said, how it ended, what it
left behind.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_PROGRAM = """
import contextlib, io, json, os, sys
from pathlib import Path
from sparring.cli import main

for arguments in json.loads(sys.stdin.read()):
    sys.argv = ["sparring", *arguments]
    out, error, code = io.StringIO(), io.StringIO(), 0
    before, light = set(Path().rglob("*")), "tensorflow" not in sys.modules
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            main.main()
        except SystemExit as end:
            code = end.code or 0
    left = sorted(str(p) for p in set(Path().rglob("*")) - before if "__pycache__" not in p.parts)
    heavy = light and "tensorflow" in sys.modules
    print(json.dumps([code, out.getvalue(), error.getvalue(), left, heavy]), file=sys.__stdout__)
"""


@dataclass(frozen=True)
class Ended:
    """End of a command. `left` are the files and folders it made, `tensorflow` whether it
    imported that.
    """

    code: int
    out: str
    error: str
    left: list[str]
    tensorflow: bool


def ended(folder: Path, commands: Sequence[Sequence[str]], timeout: float = 300) -> list[Ended]:
    """Run `sparring ...` for each of `commands` in `folder`, one after another."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        input=json.dumps(list(map(list, commands))),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    results = [Ended(*json.loads(line)) for line in done.stdout.splitlines()]
    assert len(results) == len(commands), done.stderr
    return results

"""A sweep's jobs: each a process of its own, so that none can end another, and each starts TensorFlow afresh."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from research import record


class Job:
    """What runs one composed config of a sweep in a child process, and remembers how each ended."""

    def __init__(self, command: str, flags: Sequence[str], multirun: bool) -> None:
        self.command, self.flags, self.multirun = command, list(flags), multirun
        self.ended: list[tuple[Path, str]] = []

    def run(self, cfg: DictConfig, hydra_config: DictConfig, folder: Path) -> float | None:
        """Run it; returns its objective, or None if it did not get there."""
        from research.tensorboard import declare_hparams

        values = {k: [v] for k, v in record.hparams(cfg).items()}
        declare_hparams(folder.parent, values, record.HPARAM_METRICS)
        overrides = [o for o in hydra_config.overrides.hydra if o.split("=")[0] in ("hydra.searchpath",)]
        arguments = [*self.flags, *hydra_config.overrides.task, *overrides, f"hydra.run.dir={_quoted(folder)}"]
        code = subprocess.run([sys.executable, "-m", "research", self.command, *arguments], check=False).returncode
        result = _result(folder)
        status = str(result.get("status", "failed")) if code == 0 else _failure(code, result)
        self.ended.append((folder, status))
        print(f"[{len(self.ended)}] {folder.name}: {status}", flush=True)
        return (result.get("objective") or {}).get("value")

    def conclude(self) -> int:
        """Name the failed jobs; returns the exit code."""
        failed = [(f, s) for f, s in self.ended if s.startswith(("failed", "nan"))]
        if self.ended:
            print(
                f"{len(self.ended)} jobs, {len(failed)} failed. curves: tensorboard --logdir {self.ended[0][0].parent}"
            )
        for folder, status in failed:
            print(f"  {folder}: {status}", file=sys.stderr)
        return 1 if failed else 0


def search_path(overrides: Sequence[str]) -> list[str]:
    """The folders of a `hydra.searchpath=[...]` override."""
    found = [o.split("=", 1)[1] for o in overrides if o.lstrip("+").startswith("hydra.searchpath=")]
    return [p.strip(" '\"") for text in found for p in text.strip("[]").split(",") if p.strip()]


def _failure(code: int, result: dict[str, Any]) -> str:
    reason = result.get("error") or result.get("message") or ("killed by signal " + str(-code) if code < 0 else "")
    status = result.get("status") if result.get("status") == "nan" else "failed"
    return f"{status} (exit code {code}){': ' + str(reason).splitlines()[0] if reason else ''}"


def _result(folder: Path) -> dict[str, Any]:
    path = folder / record.RESULT
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, json.JSONDecodeError):
        return {}


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"

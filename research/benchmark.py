"""`sparring benchmark`: steps per second, compile seconds and memory of the cases in conf/benchmark.yaml.

Every measurement is a process of its own; a case and its peer take turns, so that both see the same machine. The median
of the repeats counts.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from research import config, launch
from research.errors import UserError

PEERS = config.CONF.parent / "tests" / "peers"


def main(arguments: Sequence[str]) -> int:
    """Measure, print a table, write benchmark.json and benchmark.md; returns the exit code."""
    loaded: Any = OmegaConf.to_container(OmegaConf.load(config.CONF / "benchmark.yaml"))
    cases: dict[str, Any] = loaded["cases"]
    chosen = _parse(arguments, cases)
    launch.prepare()
    if chosen.measure:
        print(json.dumps(measure(cases[chosen.cases[0]])))
        return 0
    names = chosen.cases or list(cases)
    found = {name: _compare(name, cases[name], chosen.repeats, chosen.peer_python) for name in names}
    chosen.out.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine(), "repeats": chosen.repeats, "cases": found}
    (chosen.out / "benchmark.json").write_text(json.dumps(record, indent=2) + "\n")
    (chosen.out / "benchmark.md").write_text(table(found, cases))
    print(table(found, cases))
    return 0


def _parse(arguments: Sequence[str], cases: Mapping[str, Any]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sparring benchmark", description=f"Cases: {', '.join(cases)}.")
    parser.add_argument("cases", nargs="*", help="which; default all")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each; the median counts; default 5")
    parser.add_argument("--peer-python", type=Path, help="interpreter made by `make peers`; without it, no peers")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder for benchmark.json and .md")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(list(arguments))
    unknown = [c for c in chosen.cases if c not in cases]
    if unknown:
        raise UserError(f"no benchmark named {unknown[0]}; there are: {', '.join(cases)}.")
    return chosen


def measure(case: Mapping[str, Any]) -> dict[str, float]:
    """One case in this process: build, one iteration (tracing and compiling), a warm-up, then `steps` steps."""
    from research.train import build

    cfg = config.Composer(case["config"]).compose([*case["overrides"], f"run.steps={2 * case['steps']}", "run.name=b"])
    started = time.perf_counter()
    trainer = build(cfg)
    built = time.perf_counter()
    trainer.train(1)
    compiled = time.perf_counter()
    trainer.train(max(case["steps"] // 10, 1))
    before, begun = trainer.step, time.perf_counter()
    trainer.train(case["steps"])
    seconds = time.perf_counter() - begun
    trainer.close()
    return {
        "steps_per_second": (trainer.step - before) / seconds,
        "build_seconds": built - started,
        "compile_seconds": compiled - built,
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _compare(name: str, case: Mapping[str, Any], repeats: int, peer_python: Path | None) -> dict[str, Any]:
    ours, peers = [], []
    for repeat in range(repeats):
        print(f"{name} {repeat + 1}/{repeats}", file=sys.stderr, flush=True)
        ours.append(_json_of([sys.executable, "-m", "research", "benchmark", name, "--measure"]))
        if peer_python and "peer" in case:
            peers.append(_peer(case["peer"], peer_python, threads=1 + repeat % 2))
    result: dict[str, Any] = {k: statistics.median(o[k] for o in ours) for k in ours[0]}
    result["all"] = [o["steps_per_second"] for o in ours]
    if peers:
        by_threads = {t: [p["steps_per_second"] for p in peers if p["threads"] == t] for t in (1, 2)}
        best = max(statistics.median(v) for v in by_threads.values() if v)
        result |= {"peer": best, "ratio": result["steps_per_second"] / best, "peer_by_threads": by_threads}
    return result


def _peer(peer: Mapping[str, Any], python: Path, threads: int) -> dict[str, Any]:
    script = str(PEERS / peer["script"])
    return _json_of([str(python), script, peer["kind"], json.dumps(peer["settings"]), str(peer["steps"]), str(threads)])


def _json_of(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import os
    from importlib import metadata

    model = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "cpu": model[0] if model else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "tensorflow": metadata.version("tensorflow"),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def table(found: Mapping[str, Mapping[str, Any]], cases: Mapping[str, Any]) -> str:
    """The findings as Markdown."""
    rows = ["| case | steps/s | compile s | peak MB | peer steps/s | ratio |", "|---|---|---|---|---|---|"]
    for name, r in found.items():
        peer = f"{r['peer']:,.0f} | {r['ratio']:.1f}" if "peer" in r else "- | -"
        rows.append(
            f"| {name}: {cases[name]['about']} | {r['steps_per_second']:,.0f} | {r['compile_seconds']:.1f} "
            f"| {r['peak_megabytes']:,.0f} | {peer} |"
        )
    m = machine()
    return "\n".join([*rows, "", f"{m['cpu']}, {m['cores']} cores, TensorFlow {m['tensorflow']}.", ""])

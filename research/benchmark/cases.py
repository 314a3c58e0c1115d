"""Measurement of the cases of conf/benchmark.yaml, for `sparring benchmark`.

Every measurement is a process of its own; a case, its peers and another interpreter's run of it
take turns, so that all see the same machine. The median of the repeats counts.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from sparring.benchmark.machine import machine
from sparring.config import composer, targets
from sparring.errors import UserError

PEERS = composer.CONF.parent / "tests" / "peers"
WHERE = "where"  # key of a measurement's device, precision, strategy and compile mode
Figures = Mapping[str, Any]


def composed(case: Mapping[str, Any], overrides: Sequence[str] = ()) -> DictConfig:
    """Return the config of a case."""
    typed = [*case["overrides"], "run.steps=1000000000", "run.name=b", *overrides]
    return composer.Composer(case["config"]).compose(typed)


def measure(case: Mapping[str, Any], cfg: DictConfig) -> dict[str, Any]:
    """Measure one case in this process: its figures, and `where` they were taken."""
    found = targets.instantiate({**case["measure"], "_partial_": True})(cfg)
    from sparring.benchmark import machine as benchmark_machine

    return {**found, WHERE: benchmark_machine.described(cfg)}


def _compare(name: str, case: Mapping[str, Any], chosen: argparse.Namespace) -> dict[str, Any]:
    overrides = []
    for override in chosen.override:
        overrides += ["--override", override]
    command = ["-m", "sparring", "benchmark", name, "--measure", *overrides]
    ours = []
    also = []
    peers: dict[str, list[Figures]] = {
        peer: [] for peer in (case.get("peers", {}) if chosen.peer_python else {})
    }
    for repeat in range(chosen.repeats):
        print(f"{name} {repeat + 1}/{chosen.repeats}", file=sys.stderr, flush=True)
        ours.append(_json_of([sys.executable, *command]))
        if chosen.also:
            also.append(_json_of([str(chosen.also), *command]))
        for peer, found in peers.items():
            found.append(_peer(case["peers"][peer], chosen.peer_python, threads=1 + repeat % 2))
    result = _medians(ours)
    if also:
        result["also"] = _medians(also)
    if peers:
        result["peers"] = {
            peer: _beside(result["steps_per_second"], found) for peer, found in peers.items()
        }
    return result


def _beside(ours: float, found: Sequence[Figures]) -> dict[str, Any]:
    """Return a peer's figures at its better number of threads, and the ratio of `ours` to them."""
    by_threads = {t: [f["steps_per_second"] for f in found if f["threads"] == t] for t in (1, 2)}
    best = max(statistics.median(rates) for rates in by_threads.values() if rates)
    further = {
        key: statistics.median(f[key] for f in found)
        for key in found[0]
        if key == "compile_seconds"
    }
    return {"steps_per_second": best, "ratio": ours / best, "by_threads": by_threads, **further}


def _medians(found: Sequence[Figures]) -> dict[str, Any]:
    main_figure = _main_figure(found[0])
    medians: dict[str, Any] = {
        key: statistics.median(f[key] for f in found) for key in found[0] if key != WHERE
    }
    medians |= {WHERE: found[0][WHERE]} if WHERE in found[0] else {}
    return medians | {"all": [f[main_figure] for f in found]}


def _main_figure(found: Figures) -> str:
    return "steps_per_second" if "steps_per_second" in found else "seconds"


def _peer(peer: Mapping[str, Any], python: Path, threads: int) -> dict[str, Any]:
    script = str(PEERS / peer["script"])
    return _json_of(
        [
            str(python),
            script,
            peer["kind"],
            json.dumps(peer["settings"]),
            str(peer["steps"]),
            str(threads),
        ]
    )


def _json_of(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def _write(out: Path, found: Mapping[str, Figures], cases: Mapping[str, Any], repeats: int) -> None:
    record = {"machine": machine(), "repeats": repeats, "cases": found}
    (out / "benchmark.json").write_text(json.dumps(record, indent=2) + "\n")
    (out / "benchmark.md").write_text(table(found, cases))


def table(found: Mapping[str, Figures], cases: Mapping[str, Any]) -> str:
    """Return the results as Markdown: a row for each case, and further figures below."""
    also = any("also" in r for r in found.values())
    peers = list(dict.fromkeys(peer for case in cases.values() for peer in case.get("peers", {})))
    shown = [peer for peer in peers if any(peer in r.get("peers", {}) for r in found.values())]
    head = ["case", "steps/s or seconds", *(["other interpreter"] if also else [])]
    for peer in shown:
        head += [peer, "ratio"]
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, r in found.items():
        beside: list[str] = []
        for peer in shown:
            beside += _ratio(r.get("peers", {}).get(peer))
        other = [_shown(r["also"]) if "also" in r else "-"] if also else []
        rows.append(
            f"| {' | '.join([f'{name}: ' + cases[name]['about'], _shown(r), *other, *beside])} |"
        )
    details = [f"- {name}: {_details(r)}" for name, r in found.items()]
    m = machine()
    return "\n".join(
        [
            *rows,
            "",
            *details,
            "",
            f"{m['cpu']}, {m['cores']} cores, TensorFlow {m['tensorflow']}.",
            "",
        ]
    )


def _ratio(peer: Figures | None) -> list[str]:
    return [f"{peer['steps_per_second']:,.0f}", f"{peer['ratio']:.2f}"] if peer else ["-", "-"]


def _shown(figures: Figures) -> str:
    name = _main_figure(figures)
    return f"{figures[name]:,.0f}" if name == "steps_per_second" else f"{figures[name]:.1f} s"


def _details(figures: Figures) -> str:
    """Return every further figure, shares as percentages."""
    said = []
    for key, value in figures.items():
        if key == _main_figure(figures) or not isinstance(value, int | float):
            continue
        words = key.replace("_", " ")
        said.append(
            f"{words} {value:.0%}" if key.startswith("share_") else f"{words} {_plain(value)}"
        )
    where = [f"{key} {value}" for key, value in figures.get(WHERE, {}).items()]
    return (
        "; ".join([*([", ".join(said)] if said else []), *([", ".join(where)] if where else [])])
        or "-"
    )


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"

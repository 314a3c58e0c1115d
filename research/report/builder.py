"""Builder of reports, for `sparring report FOLDER...`.

It discovers runs, groups them by what varied, aggregates over seeds, and writes.
"""

import argparse
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparring.errors import UserError
from sparring.report import discovery, tables
from sparring.report.analysis import Analysis
from sparring.report.discovery import Found, Run
from sparring.report.groups import groups
from sparring.report.statistics import Bootstrap
from sparring.storage import run_folder
from sparring.tensorboard.event_reader import Curves, read_curves


def report(chosen: argparse.Namespace) -> str:
    """Write the report; return the text for the terminal. `chosen` holds the flags of `main`."""
    found = discovery.find(chosen.folders)
    tag, runs = _with_tag(found.runs, chosen.tag)
    known, maximize = _direction(runs, chosen.minimize, by_objective=chosen.tag is None)
    analysis = Analysis(
        groups(runs),
        maximize,
        Bootstrap(chosen.seed, chosen.draws),
        _scale(chosen.scale),
        chosen.baseline,
    )
    curves = {run.folder: read_curves(run.folder) for run in runs if run.settings}
    out = chosen.out or _default_folder(chosen.folders)
    absent = tables.left_out(runs)
    notes = [
        *([absent] if absent else []),
        *_notes(found, curves, known, maximize, tag),
        *_lengths(analysis),
        *_best(analysis),
    ]
    written = _tables(analysis, runs, tag)
    _write(out, chosen.folders, written, notes, analysis, curves, tag)
    shown = [table.markdown(20) for table in written if table.rows and table.name != "runs"]
    return "\n\n".join([*shown, *notes, f"report: {out / 'report.md'}\ncharts: {out}/*.png"])


def _with_tag(runs: Sequence[Run], tag: str | None) -> tuple[str, list[Run]]:
    """Return the tag of the score to report, and the runs with that score.

    Raises:
        UserError: the runs have several objectives and no tag was given, or no run has the tag.
    """
    objectives = sorted({run.objective for run in runs if run.objective})
    if tag is None and len(objectives) > 1:
        raise UserError(
            f"These runs have several objectives: {', '.join(objectives)}. Choose one with --tag."
        )
    if tag is None or objectives == [tag]:
        return next(iter(objectives), "objective"), list(runs)
    chosen = [_rescored(run, tag) for run in runs]
    if all(run.score is None for run in chosen):
        known = sorted({name for run in runs for name in run.final})
        raise UserError(f"--tag {tag}: no run has it. There are: {', '.join(known) or 'none'}.")
    return tag, chosen


def _rescored(run: Run, tag: str) -> Run:
    score = discovery.number(run.final.get(tag))
    lacks = f"it has no {tag}" if run.counts and score is None else run.problem
    return dataclasses.replace(run, score=score, problem=lacks)


def _direction(runs: Sequence[Run], minimize: bool, by_objective: bool) -> tuple[bool, bool]:
    """Return whether the direction is known, and whether larger is better."""
    said = {run.maximize for run in runs if run.maximize is not None} if by_objective else set()
    if minimize or len(said) != 1:
        return minimize, not minimize
    return True, said.pop()


def _scale(path: Path | None) -> dict[str, Sequence[float]]:
    if path is None:
        return {}
    try:
        scale = run_folder.read_yaml(path)
        return {str(task): (float(worst), float(best)) for task, (worst, best) in scale.items()}
    except (OSError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"--scale {path}: it must be a YAML of task: [worst, best] ({error})."
        ) from error


def _tables(analysis: Analysis, runs: Sequence[Run], tag: str) -> list[tables.Table]:
    made = [tables.results(analysis, tag)]
    if analysis.scalable:
        made += [tables.aggregates(analysis), tables.comparisons(analysis), tables.pairs(analysis)]
    return [*made, tables.runs(runs)]


def _notes(
    found: Found, curves: Mapping[Path, Curves], known: bool, maximize: bool, tag: str
) -> list[str]:
    better = "larger" if maximize else "smaller"
    notes = [
        f"{tag}: {better} is better"
        + ("." if known else ", as no run says otherwise (--minimize).")
    ]
    damage = [f"{folder}: {said}" for folder, read in curves.items() for said in read.damage]
    for what, lines in (
        ("Not runs, left alone", found.foreign),
        ("Event files read as far as they go", damage),
    ):
        if lines:
            more = f"\n- and {len(lines) - 10} more" if len(lines) > 10 else ""
            notes.append("\n".join([f"{what}:", *(f"- {line}" for line in lines[:10])]) + more)
    return notes


def _default_folder(folders: Sequence[Path]) -> Path:
    """Return `report/` in the folder, or of several one beside the first that names them all."""
    if len(folders) == 1:
        return folders[0] / discovery.FOLDER
    names = "-".join(folder.resolve().name for folder in folders)
    return folders[0].resolve().parent / f"{discovery.FOLDER}-{names}"[:100]


def _lengths(analysis: Analysis) -> list[str]:
    """Return a note on each task whose runs were to take different numbers of steps."""
    notes = []
    for task in analysis.tasks:
        lengths: dict[int, list[str]] = {}
        for group in analysis.groups:
            for run in group.counted if group.task == task else []:
                methods = lengths.setdefault(run.steps, [])
                if group.method not in methods:
                    methods.append(group.method)
        if len(lengths) > 1:
            said = "; ".join(f"{n} of {', '.join(names)}" for n, names in sorted(lengths.items()))
            notes.append(f"{task}: runs of different lengths are compared, in steps: {said}.")
    return notes


def _best(analysis: Analysis) -> list[str]:
    """Return a note on the best run of each task."""
    lines = []
    for task in analysis.tasks:
        runs = [run for group in analysis.groups if group.task == task for run in group.counted]
        if runs:
            sign = 1.0 if analysis.maximize else -1.0
            best = max(runs, key=lambda run: sign * (run.score or 0.0))
            lines.append(f"- {task}: {best.score:.4g}, {best.folder}")
    return ["\n".join(["Best run:", *lines])] if lines else []


def _write(
    out: Path,
    folders: Sequence[Path],
    written: Sequence[tables.Table],
    notes: Sequence[str],
    analysis: Analysis,
    curves: Mapping[Path, Curves],
    tag: str,
) -> None:
    from sparring.report import charts, tensorboard_page

    figures: dict[str, Any] = {"curves": charts.learning(analysis, curves, tag)}
    if analysis.scalable:
        figures |= {
            "aggregates": charts.aggregates(analysis),
            "profiles": charts.profiles(analysis),
        }
    if analysis.comparisons:
        figures["improvement"] = charts.improvement(analysis)
    try:
        out.mkdir(parents=True, exist_ok=True)
        tensorboard_page.clear(out)
        for table in written:
            (out / f"{table.name}.csv").write_text(table.csv())
        for name, figure in figures.items():
            figure.savefig(out / f"{name}.png", dpi=120)
        text = _text(folders, written, notes, analysis, list(figures))
        (out / "report.md").write_text(text)
    except OSError as error:
        raise UserError(
            f"{out}: {error.strerror or error}: the report cannot be written there."
        ) from error
    files = ["report.md", *(f"{t.name}.csv" for t in written), *(f"{n}.png" for n in figures)]
    pictures = {name: charts.pixels(figure) for name, figure in figures.items()}
    # TensorBoard serves no files, so a link to one would be broken there
    shown = _text(folders, written, notes, analysis, [])
    tensorboard_page.write(out, shown, pictures, analysis, curves, tag, files)


def _text(
    folders: Sequence[Path],
    written: Sequence[tables.Table],
    notes: Sequence[str],
    analysis: Analysis,
    figures: Sequence[str],
) -> str:
    bootstrap = analysis.bootstrap
    made = (
        f"Made {time.strftime('%Y-%m-%d %H:%M')} by `sparring report "
        f"{' '.join(map(str, folders))}`; intervals cover "
        f"{100 * bootstrap.level:g}%, from {bootstrap.draws} stratified bootstrap draws of seed "
        f"{bootstrap.seed}."
    )
    pictures = "\n".join(f"![{name}]({name}.png)" for name in figures)
    bodies = [table.markdown() for table in written if table.rows]
    return "\n\n".join(filter(None, ["# Report", made, *notes, pictures, *bodies])) + "\n"

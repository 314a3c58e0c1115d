"""TensorBoard on a folder: read by its own loader, served by a real server, shown by a
real browser.

The checks take any log folder, so that a fake sweep and a real one pass through the same.
"""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import TENSORS, EventAccumulator
from tensorboard.util import tensor_util

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
STATUSES = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]


def loaded(folder: Path) -> EventAccumulator:
    """The run as TensorBoard's Python loader reads it, every point kept."""
    return EventAccumulator(str(folder), size_guidance={TENSORS: 0}).Reload()


def points(folder: Path, tag: str) -> list[tuple[int, Any]]:
    """(step, value) of a tag, in the order TensorBoard shows them."""
    return [
        (event.step, tensor_util.make_ndarray(event.tensor_proto))
        for event in loaded(folder).Tensors(tag)
    ]


@dataclass(frozen=True)
class Expected:
    """Contents of a sweep's page: tags that every run has, and the rows of its HParams table."""

    runs: list[str]
    scalars: list[str]
    videos: list[str]
    texts: list[str]
    charts: list[str]  # titles in the custom scalar layout
    settings: list[str]  # columns of the HParams table
    metric: str  # the column of results
    rows: int  # groups of runs that differ in more than the seed


@contextlib.contextmanager
def tensorboard(logdir: Path) -> Iterator[str]:
    """A TensorBoard server on a free loopback port; yields its address, which ends in a slash."""
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(logdir),
        "--host",
        "127.0.0.1",
        "--port",
        "0",
    ]
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield _until(lambda: _address(server, log), 60)
        finally:
            server.terminate()
            server.wait(10)


def _address(server: subprocess.Popen, log: Any) -> str | None:
    log.seek(0)
    said = log.read()
    assert server.poll() is None, said
    found = re.search(r"TensorBoard \S+ at (http://\S+/)", said)
    return found and found[1]


def _until(ask: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"{answer!r} after {seconds} s"
        time.sleep(0.1)
    return answer


def get(url: str, path: str, **query: Any) -> Any:
    """The JSON that TensorBoard's own pages would get."""
    return json.loads(fetch(url, path, **query))


def fetch(url: str, path: str, **query: Any) -> bytes:
    """Raw answer that TensorBoard's own pages would get."""
    with urlopen(f"{url}data/{path}?{urlencode(query)}") as answer:
        return answer.read()


def session_groups(url: str, metric: str) -> list[dict[str, Any]]:
    """The rows of the HParams table, metrics averaged over a row's runs."""
    column = {"metric": {"group": "", "tag": metric}}
    body = {
        "allowedStatuses": STATUSES,
        "colParams": [column],
        "aggregationType": "AGGREGATION_AVG",
        "sliceSize": 100,
    }
    request = Request(f"{url}data/plugin/hparams/session_groups", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urlopen(request) as answer:
        return json.load(answer)["sessionGroups"]


def check_served(url: str, expected: Expected) -> None:
    """Everything a sweep must show is served over HTTP."""

    def everything_loaded() -> bool:
        tags = get(url, "plugin/scalars/tags")
        return all(
            {expected.metric, *expected.scalars} <= tags.get(run, {}).keys()
            for run in expected.runs
        )

    _until(everything_loaded, 30)
    pictures = get(url, "plugin/images/tags")
    texts = get(url, "plugin/text/tags")
    for run in expected.runs:
        for tag in expected.scalars:
            steps = [step for _, step, _ in get(url, "plugin/scalars/scalars", run=run, tag=tag)]
            assert steps, f"{run} has no point of {tag}"
            assert steps == sorted(set(steps)), f"{tag} of {run} steps back: {steps}"
        for tag in expected.videos:
            assert tag in pictures[run]
            check_gif(url, run, tag)
        for tag in expected.texts:
            assert tag in texts[run]
            assert get(url, "plugin/text/text", run=run, tag=tag)[0]["text"]
    layout = get(url, "plugin/custom_scalars/layout")
    assert [
        chart["title"] for category in layout["category"] for chart in category["chart"]
    ] == expected.charts
    rows = session_groups(url, expected.metric)
    assert len(rows) == expected.rows
    assert sorted(session["name"] for row in rows for session in row["sessions"]) == sorted(
        expected.runs
    )
    assert all(set(expected.settings) <= row["hparams"].keys() for row in rows)
    assert all(row["metricValues"] for row in rows)


def check_gif(url: str, run: str, tag: str) -> None:
    """A video's newest picture arrives as an animated GIF, which a browser plays."""
    newest = get(url, "plugin/images/images", run=run, tag=tag, sample=0)[-1]
    with urlopen(f"{url}data/plugin/images/individualImage?{newest['query']}") as answer:
        assert answer.headers["Content-Type"] == "image/gif"
        assert answer.read().startswith(b"GIF89a")


@contextlib.contextmanager
def browser_page() -> Iterator[Any]:
    """A page of a headless Chromium with an empty profile; skips the test where there is none."""
    program = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if program is None:
        pytest.skip(
            "no Chromium on this machine: install the package chromium to look at TensorBoard's "
            "pages"
        )
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="the package playwright drives the browser"
    )
    with playwright.sync_playwright() as driver, tempfile.TemporaryDirectory() as profile:
        context = driver.chromium.launch_persistent_context(
            profile,
            executable_path=program,
            headless=True,
            args=FLAGS,
            viewport={"width": 1500, "height": 1000},
        )
        context.set_default_timeout(15_000)
        yield context.new_page()
        context.close()


def check_shown(page: Any, url: str, expected: Expected, screenshots: Path) -> None:
    """The dashboards show the runs and tags to a person; leaves one PNG of each in
    `screenshots`.
    """

    def shown(*texts: str) -> None:
        for text in texts:
            page.get_by_text(text, exact=True).filter(visible=True).first.wait_for()

    def dashboard(name: str, *texts: str) -> None:
        page.goto(f"{url}#{name}")
        shown(*texts)
        page.wait_for_load_state("networkidle")
        page.screenshot(path=screenshots / f"{name}.png")

    dashboard("scalars", *expected.runs, f"tag: {expected.scalars[0]}")
    dashboard("images", *expected.runs, f"tag: {expected.videos[0]}")
    check_playing(page)
    dashboard("text", *expected.runs, f"tag: {expected.texts[0]}")
    dashboard("custom_scalars", *expected.runs, *expected.charts)
    dashboard(
        "hparams",
        *expected.settings,
        expected.metric,
        f"Number of matching session groups: {expected.rows}",
    )


def check_playing(page: Any) -> None:
    """The first picture is decoded, has a size, and moves."""
    picture = page.locator("tf-image-loader img").first
    picture.wait_for()
    _until(lambda: picture.evaluate("image => image.complete && image.naturalWidth"), 10)
    first = picture.screenshot()
    _until(lambda: picture.screenshot() != first, 10)

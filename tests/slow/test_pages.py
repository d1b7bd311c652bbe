"""The pages in a real browser: a sweep is watched while it runs, opened, filtered, compared."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import learning_model
from foresweep.cli.main import main
from planted_model import plugin

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed on this machine"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
FORESWEEP = (sys.executable, "-m", "foresweep")
SWEEP = (
    *("sweep", "--model", "guest", "--mode", "random", "--max-runs", "2", "--data", "demo"),
    *("--stride", "20", "--max-context", "64", "--workers", "1"),
)
PACED = (
    learning_model.MODULE.replace(
        "class Guest(Learner):",
        """class Paced:
    def __init__(self, job):
        self.job = job

    def __call__(self, step, scores, losses):
        import time
        from pathlib import Path
        self.job.report(step, {"train_loss": 1 / step, **scores}, losses)
        while step in (4, 8) and not (Path({gates!r}) / str(step)).exists():
            time.sleep(0.05)


class Guest(Learner):""",
    )
    + """
    def train(self, job):
        from dataclasses import replace
        return super().train(replace(job, report=Paced(job)))
"""
)
"""A model whose training stands still at steps 4 and 8 until a file of that name is there: what a
browser sees of it does not depend on how fast the machine is."""
SERIOUS = ("serious", "critical")
NARROW = {"runOnly": ["color-contrast", "scrollable-region-focusable", "target-size"]}
PATIENCE_MS = 120_000


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("watched")


class Gates:
    """Where the paced training looks for leave to go on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def open(self, *steps: int) -> None:
        for step in steps:
            (self.folder / str(step)).touch()


@pytest.fixture(scope="module")
def gates(place: Path) -> Gates:
    return Gates(place / "gates")


@pytest.fixture(scope="module")
def guest(place: Path, gates: Gates) -> Iterator[dict[str, str]]:
    """The environment in which the paced model is installed."""
    folder = place / "guest"
    folder.mkdir()
    module = PACED.replace("{gates!r}", repr(str(gates.folder)))
    with plugin(folder, module=module, space=learning_model.SPACE):
        seen = [str(folder), str(Path(__file__).parents[1])]
        yield {**os.environ, "PYTHONPATH": os.pathsep.join(seen)}


@pytest.fixture(scope="module")
def sweep(place: Path, guest: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A sweep that runs; its database is there."""
    with (place / "sweep.log").open("wb") as log:
        running = subprocess.Popen(
            (*FORESWEEP, *SWEEP), cwd=place, env=guest, stdout=log, stderr=log
        )
        until = time.monotonic() + 120
        while not (place / "hyperparams/sweeps.db").exists():
            assert running.poll() is None, (place / "sweep.log").read_text()
            assert time.monotonic() < until
            time.sleep(0.2)
        yield running
        running.kill()
        running.wait()


@pytest.fixture(scope="module")
def address(place: Path, sweep: subprocess.Popen[bytes]) -> Iterator[str]:
    """The dashboard over it."""
    until = time.monotonic() + 120
    while True:
        serving = subprocess.Popen(
            (*FORESWEEP, "dashboard", "--port", "0"), cwd=place, stdout=subprocess.PIPE, text=True
        )
        assert serving.stdout is not None
        found = re.search(r"http://\S+", serving.stdout.readline())
        if found:
            break
        assert time.monotonic() < until  # the sweep has not written its tables yet
        time.sleep(0.5)
    yield found[0].rstrip("/")
    serving.send_signal(signal.SIGINT)
    assert serving.wait(20) in (0, 130)


class Seen:
    """What a browser met on its way that it should not have."""

    def __init__(self) -> None:
        self.wrong: list[str] = []

    def watch(self, page: Any, own: str) -> None:
        page.on("pageerror", lambda e: self.wrong.append(f"error {e}"))
        page.on("console", lambda m: m.type == "error" and self.heard(m))
        page.on(
            "request",
            lambda r: r.url.startswith((own, "data:", "blob:")) or self.wrong.append(r.url),
        )

    def heard(self, message: Any) -> None:
        place = message.location.get("url", "")
        # a run that ends between the page and its figure takes the curves of what runs along
        if not place.endswith("/figure/now-curves"):
            self.wrong.append(f"console {message.text} {place}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


def here(place: Path, monkeypatch: pytest.MonkeyPatch, *command: str) -> None:
    """A command of foresweep in this process, whose imports are done."""
    monkeypatch.chdir(place)
    with pytest.raises(SystemExit):
        main(command)


def wait_for(ask: Callable[[], object], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not ask():
        assert time.monotonic() < until
        time.sleep(0.2)


def points(page: Any) -> int:
    """Points of the longest line of what runs now."""
    found: int = page.evaluate(
        "Math.max(0, ...(document.querySelector('#now-curves .plot')?.data ?? [])"
        ".map((d) => d.x.length))"
    )
    return found


def drawn(page: Any, name: str) -> None:
    page.locator(f"#{name}").scroll_into_view_if_needed()
    page.wait_for_selector(f"#{name}[data-drawn=yes]", timeout=PATIENCE_MS)


def test_a_sweep_is_watched_opened_filtered_noted_and_compared(
    browser: Any,
    address: str,
    sweep: subprocess.Popen[bytes],
    place: Path,
    gates: Gates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page, seen = browser.new_page(), Seen()
    seen.watch(page, address)
    page.set_default_timeout(PATIENCE_MS)
    page.goto(address)
    page.evaluate("window.asked = 1")
    page.wait_for_selector("#running tbody tr")  # a run appears without a reload
    wait_for(lambda: page.locator("#now-curves").count())
    drawn(page, "now-curves")
    wait_for(lambda: points(page) == 2)
    gates.open(4)
    wait_for(lambda: points(page) == 4)
    assert page.evaluate("window.asked") == 1, "the page was loaded anew"

    gates.open(8)
    assert sweep.wait(400) == 0, (place / "sweep.log").read_text()
    page.goto(f"{address}/sweep/latest")
    page.locator("input[name=where]").fill("rate < 0")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**where=*")
    assert page.locator("#leaderboard tbody tr:not(.pinned)").count() == 0
    assert page.locator("#leaderboard tbody tr.pinned").count() >= 5
    page.goto(f"{address}/sweep/latest")
    drawn(page, "skills")
    boxes = page.locator("#leaderboard tbody tr:not(.pinned) input")
    assert boxes.count() == 2

    page.locator("#leaderboard tbody tr:not(.pinned) td.code a").first.click()
    for name in ("fan", "reliability", "by-lead"):
        drawn(page, name)
    assert page.locator("#fan .plot svg").count() > 0
    page.locator("textarea[name=text]").fill("seen in a browser <b>")
    page.get_by_role("button", name="Add the note").click()
    page.wait_for_selector("text=seen in a browser <b>")

    page.goto(f"{address}/sweep/latest")
    for k in range(2):
        boxes.nth(k).check()
    page.get_by_role("button", name="Compare the picked").click()
    page.wait_for_url("**/compare*")
    drawn(page, "paired-1")
    drawn(page, "fan")
    page.get_by_role("link", name="Verdict").click()
    page.wait_for_selector("text=No verdict is on record")
    here(place, monkeypatch, "verdict")
    page.reload()
    page.wait_for_selector("#gates tbody tr")
    assert seen.wrong == []


def test_no_page_has_a_serious_fault_for_those_who_cannot_see_it(
    browser: Any, address: str, sweep: subprocess.Popen[bytes], gates: Gates
) -> None:
    """All of axe in the light, wide; in the dark, on a phone, what colours and width can change."""
    from axe_playwright_python.sync_playwright import Axe

    gates.open(4, 8)
    sweep.wait(400)
    axe = Axe()
    page = browser.new_context(bypass_csp=True).new_page()
    page.goto(f"{address}/sweep/latest")
    runs = [a.get_attribute("href") for a in page.locator("#leaderboard td.code a").all()][-2:]
    ids = "&".join(f"run={href.rpartition('/')[2]}" for href in runs)
    places = ("/", "/runs", "/sweep/latest", "/models/latest", "/data/latest", "/verdict/latest",
              "/service", runs[0], f"/compare?{ids}", "/run/none")  # fmt: skip
    for where in places:
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 1280, "height": 900})
        page.goto(f"{address}{where}")
        for scheme, width, rules in (("light", 1280, {}), ("dark", 390, NARROW)):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 900})
            found = axe.run(page, options=rules).response["violations"]
            bad = [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in SERIOUS]
            assert bad == [], (where, scheme, width)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, where
    page.context.close()


def test_the_report_opens_offline_and_asks_for_nothing(
    browser: Any,
    sweep: subprocess.Popen[bytes],
    place: Path,
    gates: Gates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gates.open(4, 8)
    sweep.wait(400)
    here(place, monkeypatch, "report", "-o", "report.html")
    context = browser.new_context(offline=True)
    page, seen = context.new_page(), Seen()
    seen.watch(page, f"file://{place}/report.html")
    page.goto(f"file://{place}/report.html")
    for name in page.eval_on_selector_all("figure[data-figure]", "all => all.map((f) => f.id)"):
        drawn(page, name)
    assert page.locator("figure svg").count() > 20
    assert seen.wrong == []
    context.close()

"""Spans modules: reports of one trial and of 500 stored ones: what they cost, how a browser shows them."""

import json
import os
import re
import subprocess
import sys
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.load import read_study
from orchestrator.report.page.page import PAGE
from tests import many, tiny
from tests.browser import CHROMIUM, QUIET
from tests.report.page.trials import Page

ROOT = Path(__file__).resolve().parents[1]
WIDTHS = (1280, 390)
REPORT = """
import re, resource, sys
from jobs.report import app
try:
    app()
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
    print("USED", used.ru_utime + used.ru_stime, most)
"""
"""`python -m jobs.report`, then its CPU seconds and KiB at most."""

MEASURE = """
const seen = [];
const done = () => {
  document.querySelectorAll("iframe").forEach((frame) => {
    const page = frame.contentDocument, own = frame.contentWindow;
    const box = (one) => one.getBoundingClientRect();
    const inside = (one) => {
      for (let up = one.parentElement; up; up = up.parentElement)
        if (["auto", "scroll"].includes(own.getComputedStyle(up).overflowX)) return true;
      return false;
    };
    const wide = Array.from(page.body.querySelectorAll("*")).filter(
      (one) => !one.closest("svg") && !inside(one) && box(one).right > frame.clientWidth + 1);
    const out = (one, whole) => one.right > whole.right + 1 || one.left < whole.left - 1
      || one.bottom > whole.bottom + 1;
    const cut = Array.from(page.querySelectorAll("svg text")).filter(
      (text) => out(box(text), box(text.closest("svg")))).map((text) => text.textContent);
    const letters = Array.from(page.querySelectorAll("svg text")).map((text) => box(text).height);
    const table = page.querySelector("#settings-table"), found = {};
    if (table) {
      const names = Array.from(table.tHead.rows[0].cells).map((one) => one.textContent);
      const head = names.indexOf("replicates") + 1;
      const values = () => Array.from(table.tBodies[0].rows).filter((row) => !row.hidden).map(
        (row) => Number(row.cells[head].dataset.v));
      const button = table.tHead.rows[0].cells[head].querySelector("button");
      button.click(); const down = values(); button.click(); const up = values();
      found.down = down.every((value, place) => !place || down[place - 1] >= value);
      found.up = up.every((value, place) => !place || up[place - 1] <= value);
      const input = table.parentElement.previousElementSibling?.querySelector("input");
      found.rows = up.length;
      if (input) {
        input.value = "block1"; input.dispatchEvent(new Event("input"));
        found.filtered = values().length;
      }
    }
    page.addEventListener("click", (event) => event.preventDefault(), true);  // as MLflow's viewer does
    page.querySelector('a[href="#again"]').click();
    found.jumped = own.scrollY > 0;
    const blank = Array.from(page.images).filter((one) => !one.naturalWidth).length;
    seen.push({ name: frame.title, width: page.documentElement.scrollWidth, frame: frame.clientWidth, blank,
      wide: wide.slice(0, 5).map((one) => one.outerHTML.slice(0, 120)), cut: cut.slice(0, 8),
      least: Math.min(...letters), ...found });
  });
  document.querySelector("pre").textContent = JSON.stringify(seen);
};
window.addEventListener("load", done);
"""


def report_of(study: Path, store: Path, out: Path) -> tuple[bytes, float, float]:
    """Write the report of stored trials by the command; return the page, CPU seconds and MiB at most."""
    arguments = ["--store", str(store), "--out", str(out), "--ship-later"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", REPORT, str(study), *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line.split() for line in done.stdout.splitlines() if line.startswith("USED")]
    (page,) = out.glob(f"*/{PAGE}")
    return page.read_bytes(), float(line[1]), float(line[2]) / 1024


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, float, float]:
    """Return the page of 500 stored trials and what it cost."""
    folder = tmp_path_factory.mktemp("large")
    study = many.write_study(folder / "many.yaml")
    many.fill(folder / "store", many.tasks(read_study(study)))
    return report_of(study, folder / "store", folder / "out")


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the page of one trial."""
    folder = tmp_path_factory.mktemp("single")
    study = tiny.write(folder / "one.yaml", {"seed": [0]}, report={"rows": ["seed"]})
    (task,) = many.tasks(read_study(study))
    many.build(folder / "store", task)
    return report_of(study, folder / "store", folder / "out")[0]


def test_500_stored_trials_are_reported_in_20_seconds_and_a_gibibyte(
    large: tuple[bytes, float, float],
) -> None:
    content, seconds, mebibytes = large
    page = Page(content)
    assert "500 trials: 500 finished" in page.text
    assert len(page.cells["settings-table"]) == 1 + 100
    assert len(content) < 5_000_000
    assert seconds < 20
    assert mebibytes < 1000


def framed(pages: dict[str, bytes]) -> str:
    """Return a page that shows each of the pages at both widths, and measures them."""
    frames = [
        f'<iframe title="{name} {width}" width="{width}" height="900" style="border:0" '
        f'srcdoc="{escape(content.decode())}"></iframe>'
        for name, content in pages.items()
        for width in WIDTHS
    ]
    return f"<!DOCTYPE html><html><body>{''.join(frames)}<pre></pre><script>{MEASURE}</script></body></html>"


def browsed(pages: dict[str, bytes], folder: Path) -> dict[str, dict[str, Any]]:
    """Return what a browser without a network measures of pages: name and width -> its numbers."""
    file = folder / "frames.html"
    file.write_text(framed(pages), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", *QUIET, f"--user-data-dir={folder / 'browser'}"]
    command += [
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--window-size=1400,1000",
        "--dump-dom",
        file.as_uri(),
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout
    found = re.search(r"<pre>(\[.*?\])</pre>", dom, re.DOTALL)
    assert found, dom[-500:]
    return {one["name"]: one for one in json.loads(unescape(found[1]))}


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on this machine")
def test_a_browser_shows_every_page_whole_at_both_widths(
    large: tuple[bytes, float, float], single: bytes, tmp_path: Path
) -> None:
    seen = browsed({"large": large[0], "single": single}, tmp_path)
    assert set(seen) == {f"{name} {width}" for name in ("large", "single") for width in WIDTHS}
    for name, one in seen.items():
        assert one["width"] <= one["frame"], (name, one["wide"])
        assert one["wide"] == [], name
        assert one["cut"] == [], name
        assert one["blank"] == 0, name
        assert one["least"] >= 9, name  # pixels of a letter's box
        assert one["down"], name
        assert one["up"], name
        assert one["jumped"], name  # by a link inside the page, where links lead nowhere
    for width in WIDTHS:
        assert (seen[f"large {width}"]["rows"], seen[f"large {width}"]["filtered"]) == (100, 50)

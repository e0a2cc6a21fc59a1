"""Page of a user study: one HTML file that works offline, by keyboard and by mouse.

It holds the images, a number for each pair and the page's name, and nothing of the settings. Answers are
downloaded as CSV; the page sends nothing, which its content security policy enforces.
"""

import base64
from collections.abc import Sequence
from string import Template

import numpy as np

from orchestrator.config.base import Refused
from orchestrator.metrics.pictures import encode_png
from orchestrator.report.stored_images import Images
from orchestrator.report.user_study.pairs import Question

MAX_BYTES = 64 * 2**20  # of a page: browsers open it at once

HEADER = ("page", "rater", "pair", "choice", "seconds")
"""Columns of the answers' CSV."""

RATER = r"[A-Za-z0-9._\-]{1,40}"
"""What names a rater, a pseudonym: a pattern of Python and of HTML."""

PAGE = Template(r"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>Which image is closer?</title>
<style>
body { font: 18px sans-serif; margin: 1em auto; max-width: 52em; text-align: center; }
section { display: flex; gap: 1.5em; justify-content: center; align-items: center; flex-wrap: wrap; }
[hidden] { display: none; }
img { width: 224px; height: 224px; display: block; image-rendering: pixelated; }
button { font: inherit; padding: 0.6em; cursor: pointer; }
button:focus-visible, input:focus-visible { outline: 3px solid #06c; }
</style>
</head>
<body data-page="$page">
<div id="start">
<p>You see a photograph and, beside it, two images. Choose the image that is closer to the photograph,
with the mouse or with the keys Left and Right. Backspace goes back by one. There is no way to skip.</p>
<form><label>Your code: <input id="rater" required maxlength="40" pattern="$rater" autocomplete="off"></label>
<button>Start</button></form>
</div>
<main hidden>
<p id="progress" aria-live="polite"></p>
$pairs
<p id="end" hidden>That was the last pair. Download your answers and hand the file in.</p>
<p><button id="back" type="button">Back</button>
<button id="download" type="button">Download answers</button></p>
</main>
<script>
"use strict";
const byId = (name) => document.getElementById(name);
const page = document.body.dataset.page;
const pairs = Array.from(document.querySelectorAll("section"));
const answers = new Map();  // pair, from 1 -> [choice, seconds]
let place = -1, since = 0, isSaved = true;

function show(next) {
  place = Math.max(0, Math.min(next, pairs.length));
  pairs.forEach((one, at) => { one.hidden = at !== place; });
  byId("end").hidden = place < pairs.length;
  byId("back").disabled = place === 0;
  byId("progress").textContent = place < pairs.length ? `$${place + 1} of $${pairs.length}` : "";
  since = performance.now();
}

function choose(choice) {
  if (place < 0 || place >= pairs.length) return;
  answers.set(place + 1, [choice, ((performance.now() - since) / 1000).toFixed(2)]);
  isSaved = false;
  show(place + 1);
}

function table() {
  const lines = ["$header"];
  for (const [pair, [choice, seconds]] of [...answers].sort((a, b) => a[0] - b[0])) {
    lines.push([page, byId("rater").value, pair, choice, seconds].join(","));
  }
  return lines.join("\n") + "\n";
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
  link.download = `answers-$${page}-$${byId("rater").value}.csv`;
  link.click();
  isSaved = true;
}

document.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  byId("start").hidden = true;
  document.querySelector("main").hidden = false;
  show(0);
});
for (const one of document.querySelectorAll("section button")) {
  one.addEventListener("click", () => choose(one.value));
}
byId("back").addEventListener("click", () => show(place - 1));
byId("download").addEventListener("click", download);
const acts = {
  ArrowLeft: () => choose("left"), ArrowRight: () => choose("right"), Backspace: () => show(place - 1),
};
document.addEventListener("keydown", (event) => {
  if (place < 0 || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key in acts) { event.preventDefault(); acts[event.key](); }
});
window.addEventListener("beforeunload", (event) => { if (!isSaved) event.preventDefault(); });
</script>
</body>
</html>
""")

PAIR = Template("""<section hidden><img alt="photograph" src="$private">
<button type="button" value="left"><img alt="left image" src="$left"></button>
<button type="button" value="right"><img alt="right image" src="$right"></button></section>""")


def render(page: str, questions: Sequence[Question]) -> bytes:
    """Return the page, ASCII, of questions in their order; raise `Refused` if it has too many bytes."""
    pairs = [
        PAIR.substitute(private=_uri(one.private), left=_uri(one.left), right=_uri(one.right))
        for one in questions
    ]
    content = PAGE.substitute(
        page=page, rater=RATER, header=",".join(HEADER), pairs="\n".join(pairs)
    ).encode()
    if len(content) > MAX_BYTES:
        size, most = len(content) / 2**20, MAX_BYTES // 2**20
        rule = f"make a page of {size:.0f} MiB, and it may have {most}"
        raise Refused("--pairs", len(questions), rule, "lower it")
    return content


def _uri(image: Images) -> str:
    """Return an image (C, S, S) uint8, C 1 or 3, as a data URI."""
    pixels = np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)
    return f"data:image/png;base64,{base64.b64encode(encode_png(np.ascontiguousarray(pixels))).decode()}"

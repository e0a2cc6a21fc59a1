// A stand-in for a browser: runs the page's script (argument 1) with a rater's keys and clicks, and prints what
// the page shows and downloads as JSON. Arguments: the script's file, the page's name, its number of pairs.
"use strict";
const [, , file, name, count] = process.argv;

function element(more = {}) {
  const on = {};
  const made = { hidden: true, dataset: {}, addEventListener: (kind, act) => { on[kind] = act; } };
  made.fire = (kind, event) => on[kind]({ preventDefault() { made.isPrevented = true; }, ...event });
  made.click = () => on.click?.({});
  return Object.assign(made, more);
}

const byId = {};
for (const id of ["start", "rater", "progress", "end", "back", "download"]) byId[id] = element();
byId.rater.value = "ann";
const sections = Array.from({ length: Number(count) }, () => element());
const buttons = sections.flatMap(() => [element({ value: "left" }), element({ value: "right" })]);
const [form, main, page, leaving] = [element(), element(), element(), element()];
let file_of_answers = null, link = null;
globalThis.document = Object.assign(page, {
  body: { dataset: { page: name } },
  getElementById: (id) => byId[id],
  querySelectorAll: (kind) => (kind === "section" ? sections : buttons),
  querySelector: (kind) => (kind === "form" ? form : main),
  createElement: () => (link = element()),
});
globalThis.window = leaving;
globalThis.URL.createObjectURL = (blob) => { file_of_answers = blob; return "blob:answers"; };
(0, eval)(require("fs").readFileSync(file, "utf8"));

const press = (key, more = {}) => page.fire("keydown", { key, ...more });
const shown = () => sections.map((one) => (one.hidden ? "-" : "x")).join("");
const asks = () => { leaving.isPrevented = false; leaving.fire("beforeunload"); return leaving.isPrevented; };
const told = {};
press("ArrowLeft"); // before the start: no answer
form.fire("submit");
told.begun = [main.hidden, shown(), byId.progress.textContent, asks()];
press("ArrowLeft");
buttons[3].click(); // right of the second pair
press("ArrowRight", { repeat: true }); // a key held down answers once
press("ArrowRight", { altKey: true }); // the browser's own
press("Backspace");
told.back = [shown(), byId.progress.textContent];
press("ArrowLeft"); // the second pair again
told.unsaved = asks();
while (byId.end.hidden) press("ArrowRight");
press("ArrowRight"); // after the end: no answer
byId.download.click();
told.saved = [asks(), link.download];
file_of_answers.text().then((text) => console.log(JSON.stringify({ ...told, text })));

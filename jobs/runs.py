"""Sweeps in the terminal: `python -m jobs.runs ls | show SWEEP | compare A B | best | diff A B`, and of one
that runs `pause SWEEP | resume SWEEP | resize SWEEP GROUPS`.

A SWEEP is a study's name, which means its latest sweep, or the start of a key. All of it comes from stores
(`--store`) or MLflow (`--mlflow`), each repeatable; requests go through the store.

Exit code 0: done. 1: a running sweep did not answer. 2: refused, such as a name that is in no store.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from jobs import runs_requests
from jobs.runs_output import AsFormat, Cell, Format, Stores, Trackings, in_words, print_rows, sweeps_of
from jobs.store_output import refusing
from orchestrator.api.runs import (
    LETTERS,
    Setting,
    StoredSweep,
    common_axes,
    find_sweep,
    find_trial,
    nearest,
    of_study,
    side_by_side,
)
from orchestrator.config.base import Refused
from orchestrator.metrics.names import MetricName

KEYS_SHOWN = 200
"""Stages of one side alone whose manifests `diff` reads."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help=__doc__)
for command in (runs_requests.pause, runs_requests.resume, runs_requests.resize):
    app.command()(command)

Metrics = Annotated[
    list[str], typer.Option("--metric", help="Show this metric; repeatable; default: the report's objective.")
]
Study = Annotated[str | None, typer.Option("--study", help="Select the sweeps of this study.")]


@app.command()
def ls(
    study: Study = None,
    store: Stores = [],  # noqa: B006
    mlflow: Trackings = [],  # noqa: B006
    form: AsFormat = Format.table,
) -> None:
    """List the sweeps, the latest first."""
    with refusing():
        known = sweeps_of(store, mlflow)
        chosen = known if study is None else of_study(known, study)
        rows = [
            {
                "sweep": one.key[:LETTERS],
                "study": one.about.study,
                "trials": f"{one.about.num_ended}/{one.about.num_points or '?'}",
                "status": one.about.status,
                **({"groups": one.about.size} if any(other.about.size for other in chosen) else {}),
                "last": in_words(one.about.last_ms),
                **({"store": one.source.uri} if len({other.source.uri for other in known}) > 1 else {}),
            }
            for one in chosen
        ]
        print_rows(form, "sweeps", rows)


@app.command()
def show(
    sweep: str,
    metric: Metrics = [],  # noqa: B006
    store: Stores = [],  # noqa: B006
    mlflow: Trackings = [],  # noqa: B006
    form: AsFormat = Format.table,
) -> None:
    """Show one sweep: its means by setting with intervals, what it was forecast to take and took."""
    with refusing():
        one = find_sweep(sweeps_of(store, mlflow), sweep)
        names = _metrics([one], metric) if metric else one.metrics
        rows = [
            {**setting.axes, "seeds": setting.row["seeds"], **_means(setting, names)}
            for setting in one.settings
        ]
        about = one.about
        status = ", ".join(filter(None, (about.status, about.size)))
        title = (
            f"{one.label}: {about.num_ended} of {about.num_points} trials ended, {status}, "
            f"{in_words(about.last_ms)}"
        )
        notes = [f"report: {one.source.report}"] if rows else []
        if not rows:
            notes = ["no report yet: it is written when every trial has ended"]
        if about.state and about.state.work:
            notes.insert(0, about.state.work)
        print_rows(form, title, rows, [*notes, *filter(None, [one.forecast])])


@app.command()
def compare(
    sweeps: Annotated[list[str], typer.Argument(help="Two sweeps or more, of any studies and stores.")],
    metric: Metrics = [],  # noqa: B006
    store: Stores = [],  # noqa: B006
    mlflow: Trackings = [],  # noqa: B006
    form: AsFormat = Format.table,
) -> None:
    """Compare means with 95 % intervals side by side, for equal values of the axes that all sweeps have."""
    with refusing():
        known = sweeps_of(store, mlflow)
        chosen = [find_sweep(known, name) for name in sweeps]
        if len(chosen) < 2:
            raise Refused("sweep", sweeps[0], "is compared with nothing", "name a second sweep")
        for one in chosen:
            if not one.settings:
                raise Refused("sweep", one.label, "has no report yet", "finish it with the same command")
        names, axes = _metrics(chosen, metric), common_axes(chosen)
        if not axes and any(one.settings[0].axes for one in chosen):
            others = ", ".join(one.label for one in chosen[1:])
            rule = f"has no axis that all of {others} have"
            raise Refused("sweep", chosen[0].label, rule, "name sweeps that share one, or use `show`")
        rows = [
            {
                **place,
                **{
                    column: cell
                    for number, one in enumerate(line)
                    for column, cell in _cells(one, number, axes, names)
                },
            }
            for place, found in side_by_side(chosen, axes)
            for line in _lines(found)
        ]
        notes = [f"{_letter(number)}: {one.label}" for number, one in enumerate(chosen)]
        print_rows(form, f"by {', '.join(axes) or 'no common axis'}", rows, notes)


@app.command()
def best(
    study: Study = None,
    metric: Metrics = [],  # noqa: B006
    most: Annotated[int, typer.Option("--most", min=1, help="Settings to print.")] = 10,
    store: Stores = [],  # noqa: B006
    mlflow: Trackings = [],  # noqa: B006
    form: AsFormat = Format.table,
) -> None:
    """Rank settings by skill; none whose 95 % interval of skill holds 0, or that has none, is called best."""
    with refusing():
        known = sweeps_of(store, mlflow)
        latest = {one.key: one for one in reversed(known if study is None else of_study(known, study))}
        settings = [setting for one in latest.values() for setting in one.settings]
        shown = [setting for setting in settings if not setting.fault]
        measured = list(dict.fromkeys(name for one in latest.values() for name in one.metrics))
        for name in metric:
            if name not in measured:
                raise Refused("--metric", name, "is in no summary", nearest(name, measured))
        names = list(dict.fromkeys(metric)) or list(dict.fromkeys(_skill_name(one) for one in shown))
        tables = {name: _ranked(shown, name, most, asks=bool(metric)) for name in names}
        faults: dict[str, int] = {}
        for setting in settings:
            if setting.fault:
                faults[setting.fault] = faults.get(setting.fault, 0) + 1
        notes = [f"not ranked: {count} settings, each {fault}" for fault, count in faults.items()]
        if not shown:
            notes.insert(0, "no setting has a skill that is shown to be above 0")
        if form is not Format.table or not tables:
            rows = [row for ranked in tables.values() for row in ranked]
            print_rows(form, f"best settings by {', '.join(names) or 'skill'}", rows, notes)
            return
        for name, ranked in tables.items():
            last = name == list(tables)[-1]
            print_rows(form, f"best settings by {name}", ranked, notes if last else ())


@app.command()
def diff(
    one: Annotated[str, typer.Argument(help="SWEEP, or SWEEP/TRIAL by the trial's name or place from 0.")],
    other: Annotated[str, typer.Argument(help="The same.")],
    store: Stores = [],  # noqa: B006
    mlflow: Trackings = [],  # noqa: B006
    form: AsFormat = Format.table,
) -> None:
    """Show the settings, code versions and stage keys in which two sweeps or two trials differ."""
    with refusing():
        known = sweeps_of(store, mlflow)
        if ("/" in one) != ("/" in other):
            rule = "is of another kind than the first" if "/" in other else "is a sweep, the first a trial"
            raise Refused("other", other, rule, "name two sweeps or two trials")
        pair = [_side(known, name) for name in (one, other)]
        rows = [*_changes("setting", *(side["settings"] for side in pair))]
        keys, cut = _keys(*((side["sweep"], side["keys"]) for side in pair))
        rows += keys
        notes = [f"{_letter(number)}: {side['label']}" for number, side in enumerate(pair)]
        if "/" in one:
            notes += dict.fromkeys(side["sweep"].source.note for side in pair)
        notes += cut
        if not rows:
            notes.append("nothing differs")
        print_rows(form, "differences", rows, notes)


def _lines(found: Sequence[Sequence[Setting]]) -> list[list[Setting | None]]:
    """Return the settings of each sweep at one place in lines: in one line where each has one at most, else
    each in a line of its own, for nothing says which belong together."""
    if all(len(side) <= 1 for side in found):
        return [[next(iter(side), None) for side in found]]
    return [
        [setting if place == number else None for place in range(len(found))]
        for number, side in enumerate(found)
        for setting in side
    ]


def _metrics(sweeps: Sequence[StoredSweep], asked: Sequence[str]) -> list[str]:
    """Return the metrics to show: those asked for, or the first one that all sweeps have."""
    shared = [name for name in sweeps[0].metrics if all(name in one.metrics for one in sweeps)]
    for name in asked:
        if name not in shared:
            rule = "is in no summary" if len(sweeps) == 1 else "is not in every summary"
            raise Refused("--metric", name, rule, nearest(name, shared))
    return list(asked) or shared[:1]


def _means(setting: Setting, names: Sequence[str]) -> dict[str, Cell]:
    return {name: setting.mean(name) or "" for name in names}


def _cells(
    setting: Setting | None, number: int, axes: Sequence[str], names: Sequence[str]
) -> list[tuple[str, Cell]]:
    """Return the columns of one sweep in a line of a comparison."""
    letter = _letter(number)
    others = (
        {} if setting is None else {axis: value for axis, value in setting.axes.items() if axis not in axes}
    )
    words = ", ".join(f"{axis}={value}" for axis, value in others.items())
    cells: dict[str, Cell] = {f"{letter} setting": words} if others else {}
    means: Mapping[str, Cell] = _means(setting, names) if setting else dict.fromkeys(names, "")
    return list({**cells, **{f"{letter} {name}": cell for name, cell in means.items()}}.items())


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else f"#{number + 1}"


def _skill_name(setting: Setting) -> str:
    assert setting.skill
    return setting.skill[0]


def _ranked(settings: Sequence[Setting], name: str, most: int, *, asks: bool) -> list[dict[str, Cell]]:
    """Return the rows of the settings that have a metric, the strongest leakage first; without one that is
    asked for those whose skill is of this name."""
    having = [one for one in settings if (asks or _skill_name(one) == name) and one.mean(name) is not None]
    rows: list[dict[str, Cell]] = []
    for one in sorted(having, key=lambda one: _rank(one, name))[:most]:
        assert one.skill
        of, skill = one.skill
        row: dict[str, Cell] = {"sweep": one.sweep.label, "setting": one.name, "skill": skill, "of": of}
        rows.append({**({"by": name} if asks else {}), **row, **(_means(one, [name]) if asks else {})})
    return rows


def _rank(setting: Setting, name: str) -> float:
    mean = setting.mean(name)
    assert mean is not None
    return mean.value if MetricName.parse(name, "--metric").metric.leaks == "down" else -mean.value


def _side(known: Sequence[StoredSweep], name: str) -> dict[str, Any]:
    """Return what `diff` compares of a sweep or a trial."""
    if "/" not in name:
        sweep = find_sweep(known, name)
        return {"label": sweep.label, "settings": sweep.study, "keys": sweep.needs, "sweep": sweep}
    sweep, trial = find_trial(known, name)
    return {
        "label": f"{sweep.label}/{trial}",
        "settings": sweep.settings_of(trial),
        "keys": sweep.built_by(trial),
        "sweep": sweep,
    }


def _changes(what: str, one: dict[str, Any], other: dict[str, Any]) -> list[dict[str, str]]:
    """Return the names whose values differ."""
    absent = "(not set)"
    names = [
        name for name in dict.fromkeys([*one, *other]) if one.get(name, absent) != other.get(name, absent)
    ]
    return [
        {"what": what, "name": name, "A": str(one.get(name, absent)), "B": str(other.get(name, absent))}
        for name in names
    ]


def _keys(*sides: tuple[StoredSweep, Sequence[str]]) -> tuple[list[dict[str, str]], list[str]]:
    """Return code versions that differ, and by stage how many keys each side has alone, with the first; and
    lines that say where not all keys were read."""
    (_, first), (_, second) = sides
    shared = set(first) & set(second)
    versions, alone, cut = [], [], []
    for number, (sweep, keys) in enumerate(sides):
        own = [key for key in keys if key not in shared]
        if len(own) > KEYS_SHOWN:
            cut.append(f"stages of {_letter(number)}: of the first {KEYS_SHOWN} of {len(own)}")
        read = sweep.source.stages([*own[:KEYS_SHOWN], *list(shared)[:1]])
        versions.append({stage: code for _, stage, code in read if code})
        stages: dict[str, list[str]] = {}
        for key, stage, _ in read:
            if key not in shared:
                stages.setdefault(stage, []).append(key[:12])
        alone.append(stages)
    rows = _changes("code", *versions)
    for name in dict.fromkeys([*alone[0], *alone[1]]):
        cells = [_counted(one.get(name, [])) for one in alone]
        rows.append({"what": "stages", "name": name, "A": cells[0], "B": cells[1]})
    rows = [row for row in rows if row["what"] != "code" or "(not set)" not in (row["A"], row["B"])]
    if rows and shared:
        rows.append({"what": "stages", "name": "shared", "A": str(len(shared)), "B": str(len(shared))})
    return rows, cut


def _counted(keys: Sequence[str]) -> str:
    return f"{len(keys)}: {', '.join(keys[:2])}" if keys else ""


if __name__ == "__main__":
    app()

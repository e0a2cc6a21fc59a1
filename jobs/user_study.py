"""User studies of `jobs.report`: the page for raters with its key, and the table of their answers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from jobs.printing import SweepProgress
from orchestrator.config.base import Refused, Scalar
from orchestrator.config.study import StudyError
from orchestrator.config.yaml_text import read_yaml
from orchestrator.store.directory import withhold
from orchestrator.store.journal import Journal

if TYPE_CHECKING:
    from jobs.sweep import Sweep

PAIRS, MAX_PAIRS = 100, 5000
MAX_SEED = 2**31 - 1
Axes = dict[str, Scalar]


def check_request(
    compare: Sequence[str], answers: Sequence[Path], pairs: int, order_seed: int
) -> tuple[Axes, Axes] | None:
    """Return the two settings to compare, None without any; raise `Refused` for what cannot be asked."""
    if compare and answers:
        rule = "exports a study, and --answers reads one"
        raise Refused("--compare", compare[0], rule, "give one of them")
    if compare and len(compare) != 2:
        raise Refused(
            "--compare", compare[0], f"is given {len(compare)} times", "give it for each of two settings"
        )
    for flag, value, most in (("--pairs", pairs, MAX_PAIRS), ("--order-seed", order_seed, MAX_SEED)):
        least = 1 if flag == "--pairs" else 0
        if not least <= value <= most:
            raise Refused(flag, value, f"must lie in {least}..{most}", "choose a value there")
    return (_axes(compare[0]), _axes(compare[1])) if compare else None


def _axes(text: str) -> Axes:
    try:
        found = read_yaml(text)
    except (yaml.YAMLError, ValueError):
        found = None
    is_mapping = isinstance(found, dict) and bool(found)
    if not is_mapping or not all(isinstance(value, Scalar) for value in found.values()):
        rule = "must be a mapping of axes to values"
        raise Refused("--compare", text, rule, "write for instance '{budget: full}'")
    return {str(axis): value for axis, value in found.items()}


def export(opened: "Sweep", settings: tuple[Axes, Axes], pairs: int, order_seed: int) -> Iterator[str]:
    """Write the page and its key to the report's folder; yield lines for people.

    Raise `StudyError` if nothing is stored, `Refused` if the settings have no images to compare, and
    `Corrupt` for a damaged file.
    """
    # Here, because pandas and torch take seconds to import and a refusal needs none.
    from orchestrator.report.user_study.key import key_file, page_file
    from orchestrator.report.user_study.page import render
    from orchestrator.report.user_study.pairs import choose

    journal = Journal(opened.store.blobs, opened.study.key)  # only read
    ledger = opened.ledger(journal, [SweepProgress(opened.console, *opened.study.objective)])
    ledger.has_work()
    if not ledger.records:
        raise none_stored(opened)
    part, study = opened.study.report.parts[0], opened.study.study
    questions, key = choose(
        ledger.records, opened.store, part, settings, study=study, num_pairs=pairs, seed=order_seed
    )
    key = key.but(sweep=opened.study.key)
    page = render(key.page, questions)
    written = _write(
        opened, {page_file(key.page): page, key_file(key.page): key.model_dump_json(indent=1).encode()}
    )
    persons = len({pair.person for pair in key.pairs})
    yield f"page: {written[0]}: {len(key.pairs)} pairs of {persons} classes, {len(page) / 2**20:.1f} MiB"
    yield f"key: {written[1]}: keep it from the raters; --answers reads it from there"


def table_of(opened: "Sweep", answers: Sequence[Path]) -> Iterator[str]:
    """Write the table of the answers to the report's folder; yield lines for people.

    Raise `Refused` for what are no answers of one page whose key is there.
    """
    # Here, as above.
    from orchestrator.report.tables import csv, latex
    from orchestrator.report.user_study.answers import read_answers
    from orchestrator.report.user_study.preference import preference_table

    key, read = read_answers(answers, opened.folder)
    table = preference_table(key, read)
    (row,) = table.to_dict("records")
    name = f"user-study-{key.page}"
    written = _write(opened, {f"{name}.csv": csv(table), f"{name}.tex": latex(table)})
    yield (
        f"{{{row['closer']}}} was found closer than {{{row['than']}}} in {100 * row['share']:.1f} % of "
        f"{row['answers']} answers, 95 % interval {100 * row['low']:.1f} .. {100 * row['high']:.1f} % "
        f"({row['interval']}), p = {row['p_binomial']:.2g} (binomial over {row['persons']} persons), "
        f"{row['raters']} raters"
    )
    yield f"table: {', '.join(written)}"


def none_stored(opened: "Sweep") -> StudyError:
    """Return the refusal of a report about nothing."""
    return StudyError(
        f"none of the {opened.num_points} points of {opened.study.study} is stored at "
        f"{opened.locations.store}; this computes them: {opened.options.command()}"
    )


def _write(opened: "Sweep", files: dict[str, bytes]) -> list[str]:
    """Write files to the report's folder; return their paths. Raise `Refused` if that is not possible."""
    folder, out = opened.folder, opened.options.out
    try:
        if not out.is_dir():
            withhold(out)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        rule = f"cannot be written to ({error.strerror})"
        raise Refused("out", folder, rule, "name another folder with --out") from None
    return [str(folder / name) for name in files]

"""A sweep as trackers see it: twenty points over four axes with curves, pictures and data sets."""

import functools
import hashlib
import io
import itertools
from collections.abc import Sequence

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from orchestrator.config.base import Scalar
from orchestrator.sweep.records import Curve, DatasetInput, Picture, SweepRecord, SweepReport, TrialRecord

STARTED_MS = 1_760_000_000_000
OBJECTIVE = "inversion/mse_test"
AXES: dict[str, list[Scalar]] = {
    "m": [1, 3, 10],
    "k": [5, 10],
    "auxiliary": ["same-heldout", "distinct"],
    "budget": ["full", "0.04"],
}


def sample_sweep(study: str = "sample", *, num_points: int = 20) -> SweepRecord:
    """Return the sweep that `sample_trials` belongs to."""
    return SweepRecord(
        key=hashlib.sha256(study.encode()).hexdigest(),
        study=study,
        about="Sample sweep over m, k, auxiliary set and frozen budget.",
        study_yaml=f"study: {study}\n",
        axes=AXES,
        num_points=num_points,
        num_dropped=4,
        objective=OBJECTIVE,
        maximize=False,
        started_ms=STARTED_MS,
    )


def sample_trials(number: int = 20, *, with_images: bool = True) -> list[TrialRecord]:
    """Return finished trials whose error falls with m and rises with k and a distinct auxiliary set."""
    points = itertools.product(*AXES.values())
    possible = [point for point in points if point[0] <= point[1]]  # type: ignore[operator]
    repeated = [(seed, point) for seed in range(number) for point in possible][:number]
    return [
        sample_trial(index, point, seed=seed, with_images=with_images)
        for index, (seed, point) in enumerate(repeated)
    ]


def sample_trial(
    index: int, point: Sequence[Scalar], *, seed: int = 0, with_images: bool = True
) -> TrialRecord:
    """Return one finished trial."""
    axes = dict(zip(AXES, point, strict=True)) | {"seed": seed}
    m, k = int(axes["m"]), int(axes["k"])
    error = 0.05 / m**0.5 + 0.002 * k + (0.06 if axes["auxiliary"] == "distinct" else 0.0) + 0.001 * seed
    epochs = np.arange(1, 13)
    losses = error + 0.2 * np.exp(-epochs / 3) + 0.002 * np.sin(epochs + index)
    started = STARTED_MS + 10_000 * index
    return TrialRecord(
        key=hashlib.sha256(f"{index}/{axes}".encode()).hexdigest(),
        index=index,
        name=f"{index:04d}-m{m:03d}-k{k:02d}-{axes['auxiliary']}-{axes['budget']}-s{seed}",
        params={
            "data.dataset": "digits",
            "target.classes": k,
            "release.truncation": m,
            "attack.name": "inverter",
        },
        axes=axes,
        status="finished",
        stage_keys={"target": f"{k:064d}", "inversion": f"{index:064d}"},
        metrics={OBJECTIVE: error, "inversion/ssim_test": 1 - 4 * error, "target/accuracy": 0.97},
        costs={"cost/wall_seconds": 12.5 + index, "cost/images_seen": 1e5},
        curves=[
            Curve(
                "inversion/validation_loss", [(int(e), float(v)) for e, v in zip(epochs, losses, strict=True)]
            ),
            Curve("target/validation_accuracy", [(int(e), float(0.97 - 0.4 / e)) for e in epochs]),
        ],
        images={"inversion/test": picture(_grid(index, noise=4 * error))} if with_images else {},
        datasets=[
            DatasetInput("digits", "ab" * 32, "built-in", "private", 1797, k),
            DatasetInput("digits-aux", "cd" * 32, "s3://bucket/datasets/digits", "auxiliary", 600, k),
        ],
        started_ms=started,
        ended_ms=started + 9_000,
    )


def sample_report(trials: Sequence[TrialRecord]) -> SweepReport:
    """Return the end of the sweep."""
    failed = sum(trial.status == "failed" for trial in trials)
    return SweepReport(
        files={"results.csv": b"trial,mse\n", "heatmaps/m-k.png": _grid(0, noise=0.0)},
        metrics={
            "trials_finished": float(len(trials) - failed),
            "trials_failed": float(failed),
            "stages_run": 44.0,
        },
        note="## Sample\n\n20 points over **m, k, auxiliary, budget**; best: `0004`.",
        num_failed=failed,
        ended_ms=STARTED_MS + 500_000,
    )


def picture(png: bytes) -> Picture:
    """Return a picture as a record has it."""
    return Picture(hashlib.sha256(png).hexdigest(), lambda: png)


@functools.cache
def _digits() -> np.ndarray:
    """Return the built-in images, which take long to read: (1797, 8, 8) in 0..16."""
    images: np.ndarray = load_digits().images
    return images


def _grid(seed: int, *, noise: float) -> bytes:
    """Return a PNG of 4 x 4 digits, each above its noisy copy, four times enlarged."""
    generator = np.random.default_rng(seed)
    victims = _digits()[16 * seed : 16 * seed + 16] / 16  # (16, 8, 8) in [0, 1]
    noisy = np.clip(victims + noise * generator.normal(size=victims.shape), 0, 1)
    rows = [np.hstack(list(part[4 * row : 4 * row + 4])) for row in range(4) for part in (victims, noisy)]
    picture = Image.fromarray((255 * np.vstack(rows)).astype(np.uint8))
    file = io.BytesIO()
    picture.resize((4 * picture.width, 4 * picture.height), Image.Resampling.NEAREST).save(file, format="PNG")
    return file.getvalue()

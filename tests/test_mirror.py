"""Spans modules: tests mirror the library, file by file; exceptions are listed with their reasons."""

import ast
import re

from tests.test_floors import ROOT, SOURCES, name_of

# Module without a test file of its name -> the test file that covers it. The reasons:
# settings without code of their own, tested as parts of a trial or a study that is refused as a whole;
TRIAL, STUDY = "tests/config/test_trial.py", "tests/config/test_study.py"
# processes of a Ray cluster, which do nothing without each other;
RAY = "tests/runtime/ray/test_connect.py"
# one contract for several implementations;
STORES, TRACKERS = "tests/store/test_blobs.py", "tests/runtime/mlflow/test_tracker.py"
# what a stage leaves for the one that reads it;
RECOGNITION = "tests/stages/test_recognition.py"
# one test of what two share;
LOMMA = "tests/attacks/test_lomma.py"
# functions of a few lines, run on inputs that only the stages before them make.
FLOW = "tests/stages/test_stages.py"
COVERED = {
    "api.forecast_record": "tests/api/test_forecast.py",
    "api.programs": "tests/jobs/test_program_sources.py",
    "attacks.lomma_g": LOMMA,
    "attacks.lomma_k": LOMMA,
    "config.attack_spec": "tests/config/test_attacks.py",
    "config.data": TRIAL,
    "config.defenses": "tests/defenses/test_objective.py",
    "config.evaluation": TRIAL,
    "config.latent_attacks.base": "tests/config/test_attacks.py",
    "config.latent_attacks.brepmi": "tests/attacks/test_brepmi.py",
    "config.latent_attacks.gmi": "tests/attacks/test_gmi.py",
    "config.latent_attacks.lomma": LOMMA,
    "config.latent_attacks.mirror": "tests/attacks/test_mirror.py",
    "config.latent_attacks.plg_mi": "tests/attacks/test_plg_mi.py",
    "config.latent_attacks.ppa": "tests/attacks/test_ppa.py",
    "config.latent_attacks.vmi": "tests/attacks/test_vmi.py",
    "config.program": "tests/datasets/test_programs.py",
    "config.release": TRIAL,
    "config.resources": "tests/sweep/test_profiles.py",
    "config.search": "tests/sweep/test_search.py",
    "config.students": LOMMA,
    "config.target": TRIAL,
    "datasets.weights_manifest": "tests/datasets/test_weights.py",
    "models.generator_outlines": "tests/models/test_public_generators.py",
    "runtime.doctor.checks": "tests/runtime/doctor/test_findings.py",
    "runtime.mlflow.check": TRACKERS,
    "runtime.sampling": "tests/runtime/test_optuna.py",
    "runtime.search": "tests/runtime/test_optuna.py",
    "runtime.ray.leases": RAY,
    "models.library_operations": "tests/models/test_operations.py",
    "report.page.front": "tests/report/page/test_content.py",
    "runtime.s3.blobs": STORES,
    "stages.descriptors": RECOGNITION,
    "stages.fisher": FLOW,
    "stages.images": FLOW,
    "stages.inversion": FLOW,
    "stages.io": FLOW,
    "stages.joint": FLOW,
    "stages.judge": FLOW,
    "stages.networks": FLOW,
    "stages.predictions": FLOW,
    "stages.private_scores": FLOW,
    "stages.runner": FLOW,
    "stages.snapshot": FLOW,
    "stages.stage": "tests/stages/test_graph.py",
    "stages.surrogate": FLOW,
    "stages.table": "tests/stages/test_graph.py",
    "stages.target": FLOW,
    "stages.uses": "tests/stages/test_attack_plans.py",
    "stages.workload": "tests/stages/test_work.py",
    "training.progress": "tests/training/test_loop.py",
    "store.blob_leases": "tests/store/test_leases.py",
    "store.directory": STORES,
    "sweep.forest": "tests/runtime/test_importance.py",
    "sweep.given_networks": "tests/sweep/test_apart.py",
    "sweep.image_counts": "tests/stages/test_work.py",
    "sweep.network_checks": "tests/sweep/test_validation.py",
    "sweep.records": TRACKERS,
    "sweep.stored": "tests/sweep/test_ledger.py",
}


def test_every_module_has_a_test_file_of_its_name() -> None:
    missing, needless = [], []
    for path in (path for path in SOURCES if path.is_relative_to(ROOT / "orchestrator")):
        module = name_of(path).partition(".")[2]
        own = ROOT / "tests" / path.relative_to(ROOT / "orchestrator").with_name(f"test_{path.name}")
        covers = ROOT / COVERED.get(module, "absent")
        if path.name == "__init__.py" or own.exists():
            needless += [module] * (module in COVERED)
        elif not covers.exists():
            missing.append(module)
    assert missing == []
    assert needless == []
    assert COVERED.keys() <= {name_of(path).partition(".")[2] for path in SOURCES}


def test_a_test_file_of_no_module_says_that_it_spans_several() -> None:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        stem = path.stem.removeprefix("test_")
        of = path.relative_to(ROOT / "tests").with_name(stem)
        places = [ROOT / "orchestrator" / of, ROOT / of]
        if not any(place.is_dir() or place.with_suffix(".py").exists() for place in places):
            header = ast.get_docstring(ast.parse(path.read_text(encoding="ascii"))) or ""
            assert re.search(r"\b[Ss]pans\b", header), path

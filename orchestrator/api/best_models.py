"""Models of the setting that leaks most, for a registry: what its trials' stages keep as safetensors."""

import logging
from collections.abc import Callable, Sequence

from orchestrator.config.study import Study
from orchestrator.report.page.ranking import ranking
from orchestrator.report.per_image import PerImage
from orchestrator.stages.graph import MODELS
from orchestrator.store.artifacts import Artifact, Artifacts
from orchestrator.sweep.records import StoredModel, TrialRecord

logger = logging.getLogger(__name__)

SUFFIX = ".safetensors"


def best_models(study: Study, records: Sequence[TrialRecord], store: Artifacts) -> list[StoredModel]:
    """Return the models of the setting that the report names, of every replicate, each stage once.

    Where no setting is shown to leak there is none, and a warning says so.
    """
    found = ranking(study, records, PerImage(store))
    best = found.worst if found else None
    if best is None:
        logger.warning("event=models_not_registered reason=%r", "no setting is shown to leak")
        return []
    words = best.words([axis for axis, _ in best.setting])
    models: dict[str, StoredModel] = {}
    for member in sorted(best.members, key=lambda one: one.index):
        for role, stages in MODELS.items():
            key = next((member.stage_keys[name] for name in stages if name in member.stage_keys), None)
            artifact = None if key is None or key in models else store.find(key)
            if artifact is None:
                continue
            files = [name for name in sorted(artifact.files) if name.endswith(SUFFIX)]
            if files:
                reader = _reader(store, artifact)
                models[artifact.key] = StoredModel(role, artifact.key, member.key, words, files, reader)
    return list(models.values())


def _reader(store: Artifacts, artifact: Artifact) -> Callable[[str], bytes]:
    def read(name: str) -> bytes:
        return store.read(artifact, name)

    return read

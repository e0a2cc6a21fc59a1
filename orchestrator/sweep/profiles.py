"""Numeric profiles of a study's stages, which enter their keys: from `resources` alone, on any machine."""

from orchestrator.config.resources import Resources
from orchestrator.stages.graph import Profile


def profile_of(resources: Resources, stage: str | None = None) -> Profile:
    """Return the numeric profile of a stage, or of all stages that name no resources of their own; where its
    precision is `auto`, planning a stage decides."""
    needs = resources.of(stage)
    return Profile(
        device="cuda" if needs.gpus_per_worker else "cpu",
        precision=needs.precision,
        workers=needs.workers,
        threads=needs.threads,
    )


def profiles_of(resources: Resources) -> dict[str, Profile]:
    """Return the numeric profiles of the stages that name resources of their own, by stage."""
    return {stage: profile_of(resources, stage) for stage in resources.stages}

"""Early stopping in this process, by Optuna's pruners; on Ray it is Tune's schedulers that compare."""

from collections.abc import Mapping

import optuna
from optuna.trial import TrialState

from orchestrator.config.search import Scheduler
from orchestrator.stages.stage import Stage
from orchestrator.sweep.rungs import Report, loss_of


class LocalRungs:
    """Implements `Rungs`: trainings run one after the other, so that what is stopped repeats."""

    def __init__(self, scheduler: Scheduler) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(direction="minimize", pruner=_pruner(scheduler))
        self._before: tuple[optuna.Trial, list[float]] | None = None  # the last training, with its losses

    def begin(self, stage: Stage) -> Report:
        """Return what takes the progress of a training that begins; the one before it has ended."""
        if self._before is not None and (losses := self._before[1]):
            self._study.tell(self._before[0], losses[-1])
        training, losses = self._study.ask(), list[float]()
        self._before = training, losses

        def report(progress: Mapping[str, float]) -> bool:
            loss = loss_of(stage.name, progress)
            if loss is None:
                return True
            training.report(loss, int(progress["epoch"]))
            losses.append(loss)
            if not training.should_prune():
                return True
            self._study.tell(training, state=TrialState.PRUNED)
            self._before = None
            return False

        return report


def _pruner(scheduler: Scheduler) -> optuna.pruners.BasePruner:
    if scheduler.kind == "median":
        return optuna.pruners.MedianPruner(
            n_startup_trials=scheduler.least_trials, n_warmup_steps=scheduler.grace_epochs
        )
    return optuna.pruners.SuccessiveHalvingPruner(
        min_resource=scheduler.grace_epochs, reduction_factor=scheduler.reduction_factor
    )

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
        self._last = ""  # key of the last training
        self._training: optuna.Trial | None = None  # that training, unless it was stopped
        self._losses: dict[int, float] = {}  # its epochs

    def begin(self, stage: Stage) -> Report:
        """Return what takes the progress of a training that begins, or goes on after a pause; another one
        before it has ended."""
        if self._training is None or self._last != stage.key:
            if self._training is not None and self._losses:
                self._study.tell(self._training, list(self._losses.values())[-1])
            self._last, self._training, self._losses = stage.key, self._study.ask(), {}
        training, losses = self._training, self._losses

        def report(progress: Mapping[str, float]) -> bool:
            loss, epoch = loss_of(stage.name, progress), int(progress.get("epoch", 0))
            if loss is None or epoch in losses:
                return True
            training.report(loss, epoch)
            losses[epoch] = loss
            if not training.should_prune():
                return True
            self._study.tell(training, state=TrialState.PRUNED)
            self._training = None
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

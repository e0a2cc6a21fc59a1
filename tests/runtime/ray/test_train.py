"""Worker groups as Ray Train's controller gets them: nothing that it unpickles imports torch, and it starts
no actor that a group does without."""

import subprocess
import sys

import pytest

SWEEP = """
import orchestrator.api.sweep, orchestrator.runtime.ray.groups, orchestrator.runtime.ray.tune
"""

CONTROLLER = """
import pathlib
import ray
from ray import cloudpickle
from ray.train.v2._internal.execution.controller import TrainController
from orchestrator.runtime.locations import Locations
from orchestrator.runtime.ray import train
from orchestrator.runtime.ray.pools import Pool
from orchestrator.runtime.ray.process_group import ProcessGroup

class Caught(Exception):
    pass

def catch(self, **arguments):
    raise Caught(arguments)

def callbacks(self):
    return [self.backend_config, self.backend_config.backend_cls]

train.DataParallelTrainer._initialize_and_run_controller = catch
train.DataParallelTrainer._create_default_callbacks = callbacks
ray.put = cloudpickle.dumps
pool, none = Pool(workers=2), pathlib.Path("/none")
try:
    train.train("g", pool, Locations(store="/none"), 1.0, None, none)
except Caught as caught:
    (arguments,) = caught.args
    for name in ("callbacks", "train_run_context", "scaling_policy", "failure_policy"):
        cloudpickle.loads(cloudpickle.dumps(arguments[name]))
    config, setup = arguments["callbacks"]
    assert config == ProcessGroup("gloo") and setup().share_cuda_visible_devices
else:
    raise AssertionError("no controller was started")
"""

TRIAL = """
from ray import cloudpickle
from orchestrator.runtime.ray import tune
cloudpickle.loads(cloudpickle.dumps((tune._drive, tune.BrokerClient)))
"""


@pytest.mark.parametrize("program", [SWEEP, CONTROLLER, TRIAL], ids=["sweep", "controller", "trial driver"])
def test_torch_is_imported_by_none_but_the_workers(program: str) -> None:
    words = [sys.executable, "-c", f"{program}\nimport sys\nprint('torch' in sys.modules)"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False"]


CALLBACKS = """
from orchestrator.runtime.ray.train import GroupTrainer
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

trainer = GroupTrainer(print)
every, ours = (kind._create_default_callbacks(trainer) for kind in (DataParallelTrainer, GroupTrainer))
print(*sorted({type(one).__name__ for one in every} - {type(one).__name__ for one in ours}))
print(*(type(one).__name__ for one in ours))
"""


def test_a_group_has_no_actor_for_data_sets_and_none_that_frees_what_the_sweep_itself_frees() -> None:
    words = [sys.executable, "-c", CALLBACKS]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    left_out, kept = done.stdout.splitlines()
    assert left_out.split() == ["DatasetsCallback", "PlacementGroupCleanerCallback"]
    assert "BackendSetupCallback" in kept.split()

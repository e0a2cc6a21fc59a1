"""Calls apart: functions that import torch, run for a process that does without it and is 350 MiB smaller.

A sweep's own process lives as long as the sweep and needs torch for some checks of its plan alone.
"""

import os
import pickle
import subprocess
import sys
import threading
from importlib import import_module
from typing import Any

from orchestrator.config.installation import ROOT

IDLE_SECONDS = 10.0
"""After its last call the other process waits for another one this long: it has paid for its imports."""

PROGRAM = f"import sys; sys.path.insert(0, sys.argv[1]); from {__name__} import serve; serve()"


class Apart:
    """Calls functions in a Python process of its own, started with the first call; it ends with this one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._timer = threading.Timer(0.0, self.close)
        self._lock = threading.Lock()

    def call(self, path: str, *arguments: Any, **named: Any) -> Any:
        """Return what the function `module.name` of this package returns, raise what it raises.

        Arguments, result and error are pickled, except where this process has torch: the call is made here.
        Raise `RuntimeError` if the other process ends before it answers.
        """
        if "torch" in sys.modules:
            return _called(path, arguments, named)
        with self._lock:
            self._timer.cancel()
            result, error = self._answer(pickle.dumps((path, arguments, named)))
            self._timer = threading.Timer(IDLE_SECONDS, self.close)
            self._timer.daemon = True
            self._timer.start()
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """End the other process; a later call starts another."""
        with self._lock:
            self._end()

    def _answer(self, request: bytes) -> tuple[Any, Exception | None]:
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request)
            process.stdin.flush()
            answer: tuple[Any, Exception | None] = pickle.load(process.stdout)
        except (OSError, EOFError):
            raise RuntimeError(f"the process of plan checks ended with exit code {self._end()}") from None
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM, str(ROOT)],  # -P: no modules of the working directory
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the sweep's
        )
        return self._process

    def _end(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.communicate()  # closes its input, at whose end it leaves
        return process.returncode


def serve() -> None:
    """Answer calls until the input ends: the other process."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    while True:
        try:
            path, arguments, named = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answer: tuple[Any, Exception | None]
        try:
            answer = _called(path, arguments, named), None
        except Exception as error:  # any of a check: it is raised where the call was made
            answer = None, error
        pickle.dump(answer, answers)
        answers.flush()


def _called(path: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)(*arguments, **named)

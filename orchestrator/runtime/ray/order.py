"""Order of trials: drawn so that drivers, which walk one stage after the other, seldom wait for the same one.

A grid lists neighbours that share their target: drawn in that order, the first dozens of drivers would wait
for one stage while every other group idles. No Ray.
"""

import heapq
from collections.abc import Sequence

from orchestrator.sweep.trial import Task


class TaskQueue:
    """Waiting trials; the next one can build a stage at once that no running trial builds.

    Of several it is the one that shares the fewest unbuilt stages with running trials, then the one with the
    most to build, then the first. Every stage moves each trial that needs it twice, when it is taken and when
    it is built, so all draws together take as many steps as the trials have stages.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = list(tasks)
        self._keys = [list(dict.fromkeys(one.key for one in task.stages.values())) for task in tasks]
        self._users: dict[str, list[int]] = {}  # unbuilt stage -> trials that need it
        for number, keys in enumerate(self._keys):
            for key in keys:
                self._users.setdefault(key, []).append(number)
        self._taken: set[str] = set()  # unbuilt stages of running trials
        self._shared = [0] * len(self._tasks)  # of each trial: its taken stages
        self._own = [len(keys) for keys in self._keys]  # of each trial: its other unbuilt stages
        self._waiting = set(range(len(self._tasks)))
        self._heap = [self._place(number) for number in self._waiting]
        heapq.heapify(self._heap)

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, *, may_wait: bool = True) -> tuple[Task, str | None] | None:
        """Return the next trial, which runs from now on, and the stage of others that it waits for first.

        None if there is no trial, or none but such that wait and `may_wait` is False.
        """
        while self._heap:
            place = self._heap[0]
            number = place[-1]
            if number not in self._waiting or place != self._place(number):
                heapq.heappop(self._heap)  # it was moved since
                continue
            is_blocked = place[0]
            return None if is_blocked and not may_wait else self._taken_now(number)
        return None

    def is_unbuilt(self, key: str) -> bool:
        """Return whether a stage of some trial has still to be built."""
        return key in self._users

    def built(self, key: str) -> None:
        """Note that a stage is built, or has failed: no trial waits for it now."""
        users = self._users.pop(key, None)
        if users is None:
            return
        was_taken = key in self._taken
        self._taken.discard(key)
        self._move(users, shared=-was_taken, own=was_taken - 1)

    def end(self, task: Task) -> None:
        """Note that a trial has ended, and with it every stage that it has."""
        for stage in task.stages.values():
            self.built(stage.key)

    def _taken_now(self, number: int) -> tuple[Task, str | None]:
        self._waiting.remove(number)
        first = self._first(number)
        waits_for = first if first in self._taken else None
        for key in self._keys[number]:
            if key in self._users and key not in self._taken:
                self._taken.add(key)
                self._move(self._users[key], shared=1, own=-1)
        return self._tasks[number], waits_for

    def _first(self, number: int) -> str | None:
        return next((key for key in self._keys[number] if key in self._users), None)

    def _place(self, number: int) -> tuple[bool, int, int, int]:
        return self._first(number) in self._taken, self._shared[number], -self._own[number], number

    def _move(self, numbers: Sequence[int], *, shared: int, own: int) -> None:
        for number in numbers:
            if number in self._waiting:
                self._shared[number] += shared
                self._own[number] += own
                heapq.heappush(self._heap, self._place(number))

"""Order of trials: drawn so that drivers, which walk one stage after the other, seldom wait for the same one.

A grid lists neighbours that share their target: drawn in that order, the first dozens of drivers would wait
for one stage while every other group idles. No Ray.
"""

import heapq
from collections.abc import Sequence

from orchestrator.sweep.trial import Task


class TaskQueue:
    """Waiting trials; the next one shares the fewest unbuilt stages with trials that run now.

    Of equal ones it is the one that has the most stages to build, then the first. A stage counts as built
    when a trial that has it ends. Every stage changes the place of each trial that needs it twice, so all
    draws together cost as many steps as the trials have stages.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = list(tasks)
        self._users: dict[str, list[int]] = {}  # unbuilt stage -> trials that need it
        for number, task in enumerate(tasks):
            for key in _keys(task):
                self._users.setdefault(key, []).append(number)
        self._taken: set[str] = set()  # unbuilt stages of running trials
        self._shared = [0] * len(self._tasks)  # of each trial: its taken stages
        self._own = [len(_keys(task)) for task in tasks]  # of each trial: its other unbuilt stages
        self._waiting = set(range(len(self._tasks)))
        self._heap = [self._place(number) for number in self._waiting]
        heapq.heapify(self._heap)

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> Task:
        """Return the next trial, which runs from now on; there must be one."""
        while True:
            place = heapq.heappop(self._heap)
            number = place[2]
            if number in self._waiting and place == self._place(number):
                break
        self._waiting.remove(number)
        task = self._tasks[number]
        for key in _keys(task):
            if key in self._users and key not in self._taken:
                self._taken.add(key)
                self._move(self._users[key], shared=1, own=-1)
        return task

    def end(self, task: Task) -> None:
        """Note that a trial has ended, and with it the stages that others may have waited for."""
        for key in _keys(task):
            users = self._users.pop(key, None)
            if users is None:
                continue
            if key in self._taken:
                self._taken.remove(key)
                self._move(users, shared=-1, own=0)
            else:
                self._move(users, shared=0, own=-1)

    def _place(self, number: int) -> tuple[int, int, int]:
        return self._shared[number], -self._own[number], number

    def _move(self, numbers: Sequence[int], *, shared: int, own: int) -> None:
        for number in numbers:
            if number in self._waiting:
                self._shared[number] += shared
                self._own[number] += own
                heapq.heappush(self._heap, self._place(number))


def _keys(task: Task) -> list[str]:
    return list(dict.fromkeys(stage.key for stage in task.stages.values()))

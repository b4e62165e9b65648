"""Locust's view of a run's course: how many users now."""

from __future__ import annotations

import sys

from locust import LoadTestShape

from folio_loadtests.course import Course
from folio_loadtests.errors import RunError
from folio_loadtests.progress import Progress


class CourseShape(LoadTestShape):
    """Asks the course about once a second, and shows how it goes.

    Attributes:
        course: the run; set before it starts, so the next two.
        progress: says how it goes.
        spawn_rate: users a second.
        failure: why the run could not be made; empty otherwise.
    """

    use_common_options = True
    course: Course
    progress: Progress
    spawn_rate = 100.0
    failure = ""

    def tick(self) -> tuple[int, float] | None:
        """Users and spawn rate for now; None at the end."""
        try:
            num_users = self.course.num_users()
        except RunError as error:
            self.failure = str(error)
            return None
        if line := self.progress.line():
            sys.stderr.write(f"{line}\n")
        return None if num_users is None else (num_users, self.spawn_rate)

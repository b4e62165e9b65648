"""How a run's parts meet Locust: a process alone, a master that decides, or a worker that asks and reports."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from typing import Any

import gevent
from locust.env import Environment
from locust.runners import MasterRunner, Runner, WorkerRunner

from folio_loadtests.arguments import RunOptions, read_options
from folio_loadtests.briefing import Briefing
from folio_loadtests.course import Course
from folio_loadtests.errors import RunError
from folio_loadtests.participant import Participant
from folio_loadtests.progress import Progress
from folio_loadtests.recording import Recording
from folio_loadtests.report import publish
from folio_loadtests.sample import Phase
from folio_loadtests.shape import CourseShape
from folio_loadtests.users import USERS, ArrivalUser
from folio_loadtests.verdict import Status

BRIEFING = "folio_briefing"
REPORT = "folio_report"
REPORT_S = 0.5
TIMER_S = 0.02


def connect(environment: Environment, **_: object) -> None:
    """Locust's `init` event: makes what this process needs."""
    runner = environment.runner
    assert runner is not None
    # What is loaded by now stays: looking through it for garbage would only hold requests up.
    gc.collect()
    gc.freeze()
    if isinstance(runner, WorkerRunner):
        _connect_worker(environment, runner)
        return
    try:
        asked = _asked(environment)
    except RunError as error:
        _say(f"The load test cannot run: {error}")
        sys.exit(Status.NOT_RUN)
    recording = Recording()
    environment.stop_timeout = asked.plan.drain_timeout_s
    if isinstance(runner, MasterRunner):
        course = _connect_master(environment, runner, asked, recording)
    else:
        course = _connect_alone(environment, asked, recording)
    _connect_shape(environment, course, asked)


def _asked(environment: Environment) -> RunOptions:
    assert environment.parsed_options is not None
    return read_options(environment.parsed_options, environment.host)


def _connect_worker(environment: Environment, runner: WorkerRunner) -> None:
    participant = _participant(environment)

    def on_briefing(msg: Any, **_: object) -> None:
        _brief(runner, participant, Briefing.read(msg.data))

    def report(**_: object) -> None:
        runner.send_message(REPORT, participant.report())

    runner.register_message(BRIEFING, on_briefing)
    environment.events.test_stop.add_listener(report)
    gevent.spawn(_repeat, report)


def _connect_master(environment: Environment, runner: MasterRunner, asked: RunOptions, recording: Recording) -> Course:
    def announce(briefing: Briefing) -> None:
        _choose_users(environment, briefing, asked)
        if briefing.phase is Phase.MEASUREMENT:
            runner.stats.reset_all()
        runner.send_message(BRIEFING, briefing.fields())

    def on_report(msg: Any, **_: object) -> None:
        recording.add_report(f"worker {runner.get_worker_index(msg.node_id) + 1}", msg.data)
        told = course.briefing
        if told is not None and not (msg.data["is_briefed"] and msg.data["phase"] == told.phase.value):
            runner.send_message(BRIEFING, told.fields(), client_id=msg.node_id)

    course = Course(asked.plan, recording, announce)
    runner.register_message(REPORT, on_report)
    return course


def _connect_alone(environment: Environment, asked: RunOptions, recording: Recording) -> Course:
    participant, runner = _participant(environment), environment.runner
    assert runner is not None

    def announce(briefing: Briefing) -> None:
        _choose_users(environment, briefing, asked)
        _brief(runner, participant, briefing)

    def collect(**_: object) -> None:
        recording.add_report("generator", participant.report())

    environment.events.test_stop.add_listener(collect)
    gevent.spawn(_repeat, collect)
    return Course(asked.plan, recording, announce)


def _connect_shape(environment: Environment, course: Course, asked: RunOptions) -> None:
    shape, options = environment.shape_class, environment.parsed_options
    assert isinstance(shape, CourseShape)
    assert options is not None
    shape.course, shape.progress = course, Progress(course)
    shape.spawn_rate = options.spawn_rate or shape.spawn_rate

    def on_quitting(**_: object) -> None:
        environment.process_exit_code = Status.NOT_RUN  # until there is a verdict
        if shape.failure or course.briefing is None:
            _say(f"The load test could not run: {shape.failure or 'it was ended before it began'}")
        else:
            course.finish()
            environment.process_exit_code = publish(course, asked)

    environment.events.quitting.add_listener(on_quitting)


def _participant(environment: Environment) -> Participant:
    """This process's participant, known to its users; its timers are watched from now on."""
    participant = Participant(environment.events.request.fire)
    for user_class in USERS:
        user_class.participant = participant
    ArrivalUser.participant = participant

    def on_user_error(exception: BaseException, **_: object) -> None:
        participant.recorder.add_fault(type(exception).__name__)

    environment.events.user_error.add_listener(on_user_error)
    gevent.spawn(_watch_timers, participant)
    return participant


def _brief(runner: Runner, participant: Participant, briefing: Briefing) -> None:
    is_new = participant.recorder.phase is not briefing.phase
    participant.brief(briefing)
    if is_new and briefing.phase is Phase.MEASUREMENT:
        runner.stats.reset_all()


def _choose_users(environment: Environment, briefing: Briefing, asked: RunOptions) -> None:
    """Which classes there are users of, and their weights; users that run stay as they are."""
    if asked.plan.schedule.shape == "poisson":
        environment.user_classes = [ArrivalUser]
        return
    weights = {str(kind): user.weight for kind, user in briefing.workload.users.items() if user.weight}
    chosen = [user_class for user_class in USERS if user_class.kind in weights]
    for user_class in chosen:
        user_class.weight = weights[user_class.kind]
    environment.user_classes = list(chosen)


def _watch_timers(participant: Participant) -> None:
    """A timer's lateness is how long this process kept everybody waiting, and the machine kept this process."""
    while True:
        due_s = time.monotonic() + TIMER_S
        gevent.sleep(TIMER_S)
        participant.recorder.add_lateness(time.monotonic() - due_s)


def _repeat(action: Callable[[], None]) -> None:
    while True:
        gevent.sleep(REPORT_S)
        action()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")

"""What `locust -f` loads: the users, the shape, and how a run's parts meet Locust's events."""

from __future__ import annotations

import grpc.experimental.gevent
from locust import events

from folio_loadtests.arguments import add_arguments
from folio_loadtests.shape import CourseShape
from folio_loadtests.users import ArrivalUser, AttentionUser, ChatUser, DocumentUser, OneShotUser, ProbeUser
from folio_loadtests.wiring import connect

__all__ = ["ArrivalUser", "AttentionUser", "ChatUser", "CourseShape", "DocumentUser", "OneShotUser", "ProbeUser"]

# gRPC waits in threads of its own; this has it wait as every other greenlet does.
grpc.experimental.gevent.init_gevent()
events.init_command_line_parser.add_listener(add_arguments)
events.init.add_listener(connect)

"""The admin operations: their names, their arguments, and who may call them.

Adding an operation is one entry of `OPERATIONS`. Knows how an operation is written and checked; does not know
what it does (`admin` carries it out).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from folio_backend.errors import InvalidArgument
from folio_backend.field_values import identifier, integer, shown_name, text, wrong_type
from folio_backend.json_document import parse_json_document
from folio_backend.request import DEFAULT_TENANT, Operation, RequestLimits

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME_KEY = "op"
_ADMIN_KEY = "admin_token"


@dataclass(frozen=True)
class IdentifierArgument:
    """An argument that names a session or a request; `RequestLimits.max_id_bytes` bounds it."""

    name: str
    required: bool = True

    def read(self, value: object, limits: RequestLimits) -> str:
        """The checked value; raises InvalidArgument."""
        return identifier(self.name, value, limits.max_id_bytes)


@dataclass(frozen=True)
class TokenCountArgument:
    """An argument that counts tokens of a sequence: 0 to `RequestLimits.max_model_tokens`."""

    name: str
    required: bool = True

    def read(self, value: object, limits: RequestLimits) -> int:
        """The checked value; raises InvalidArgument."""
        return integer(self.name, value, 0, limits.max_model_tokens)


@dataclass(frozen=True)
class OperationSpecification:
    """What is declared of an operation.

    Args:
        arguments: every argument it knows.
        one_of: names of optional arguments of which exactly one is given.
        needs_admin: it shows or ends what belongs to others, and so needs the admin token when one is set.
    """

    arguments: tuple[IdentifierArgument | TokenCountArgument, ...] = ()
    one_of: tuple[str, ...] = ()
    needs_admin: bool = False


OPERATIONS: Mapping[str, OperationSpecification] = MappingProxyType(
    {
        "stats": OperationSpecification(),
        "health": OperationSpecification(),
        "sessions": OperationSpecification(needs_admin=True),
        "close": OperationSpecification((IdentifierArgument("session_id"),)),
        "fork": OperationSpecification(
            (IdentifierArgument("session_id"), IdentifierArgument("new_session_id")),
        ),
        "truncate": OperationSpecification(
            (IdentifierArgument("session_id"), TokenCountArgument("num_tokens")),
        ),
        "cancel": OperationSpecification(
            (
                IdentifierArgument("request_id", required=False),
                IdentifierArgument("session_id", required=False),
            ),
            one_of=("request_id", "session_id"),
        ),
    }
)


def parse_operation(document: str, limits: RequestLimits, *, tenant: str = DEFAULT_TENANT) -> Operation:
    """The operation that a JSON document asks for, such as `{"op": "close", "session_id": "s1"}`.

    Args:
        document: a JSON object: `op`, the operation's arguments, and optionally `admin_token`.
        limits: how long identifiers and how large token counts may be.
        tenant: who asks.

    Raises:
        InvalidArgument: not such an object, an unknown operation or argument, a missing or a bad argument.
    """
    members = parse_json_document("op", document)
    if not isinstance(members, dict):
        raise wrong_type("op", members, 'a JSON object such as {"op": "stats"}')
    name, specification = _specification(members.get(_NAME_KEY))
    given = {key: value for key, value in members.items() if key not in {_NAME_KEY, _ADMIN_KEY}}
    arguments = MappingProxyType(_arguments(name, specification, given, limits))
    return Operation(name, arguments, _admin_token(members, limits), tenant)


def check_admin(operation: Operation, token: str | None) -> None:
    """Refuses an operation that needs the admin token and does not carry it.

    Args:
        operation: what is asked for.
        token: the admin token that is set; None or empty when none is, and then everything is allowed.

    Raises:
        InvalidArgument: the token is missing or is not the right one.
    """
    if not token or not OPERATIONS[operation.name].needs_admin:
        return
    given = operation.admin_token or ""
    if not hmac.compare_digest(given.encode("utf-8"), token.encode("utf-8")):
        raise InvalidArgument(
            f"{operation.name} needs the admin token.",
            field=_ADMIN_KEY,
            allowed="the token that the server was started with",
            reason="admin_token",
        )


def _admin_token(members: Mapping[str, object], limits: RequestLimits) -> str | None:
    if _ADMIN_KEY not in members:
        return None
    return text(_ADMIN_KEY, members[_ADMIN_KEY], limits.max_document_bytes)


def _specification(name: object) -> tuple[str, OperationSpecification]:
    allowed = ", ".join(OPERATIONS)
    if name is None:
        raise InvalidArgument('op has no key "op" that names the operation.', field="op", allowed=allowed)
    if not isinstance(name, str):
        raise wrong_type("op", name, allowed)
    if name not in OPERATIONS:
        raise InvalidArgument(f"op names no operation ({len(name)} characters).", field="op", allowed=allowed)
    return name, OPERATIONS[name]


def _arguments(
    name: str, specification: OperationSpecification, given: Mapping[str, object], limits: RequestLimits
) -> dict[str, object]:
    known = {argument.name for argument in specification.arguments}
    for key in given:
        if key not in known:
            shown = shown_name(key)
            allowed = ", ".join(sorted(known)) or "no arguments"
            raise InvalidArgument(f"{name} has no argument {shown}.", field=shown, allowed=allowed)
    for argument in specification.arguments:
        if argument.required and argument.name not in given:
            raise InvalidArgument(f"{name} needs {argument.name}.", field=argument.name, allowed="a value")
    _check_one_of(name, specification.one_of, given)
    present = (argument for argument in specification.arguments if argument.name in given)
    return {argument.name: argument.read(given[argument.name], limits) for argument in present}


def _check_one_of(name: str, choices: tuple[str, ...], given: Mapping[str, object]) -> None:
    num_given = sum(choice in given for choice in choices)
    if choices and num_given != 1:
        raise InvalidArgument(
            f"{name} was given {num_given} of {len(choices)}.",
            field=choices[0],
            allowed=f"exactly one of {', '.join(choices)}",
        )

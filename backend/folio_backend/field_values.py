"""Checks of single values: text, identifiers, booleans and integers, by field name.

Knows how a value that a client sent is read and how a refusal is worded: the field and its bounds, never what
a string held. Does not know which fields there are, nor whether a value came in a tensor, parameter or JSON.
"""

from __future__ import annotations

import re

from folio_backend.errors import InvalidArgument

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1

_MAX_SHOWN_CHARACTERS = 64
_MAX_SHOWN_BITS = 64
_DECIMAL = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)


def shown_name(name: object) -> str:
    """A key that a client chose, as an error text may show it: printable, at most 64 characters."""
    text = str(name)
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[:_MAX_SHOWN_CHARACTERS])
    return shown or "(empty)"


def wrong_type(field: str, value: object, allowed: str) -> InvalidArgument:
    """The error of a value that has the wrong type; names the type alone."""
    return InvalidArgument(f"{field} is of type {type(value).__name__}.", field=field, allowed=allowed)


def text(field: str, value: object, max_bytes: int) -> str:
    """The string that `value` holds, not empty, as valid Unicode.

    Args:
        field: the field's name, for the error.
        value: str, or bytes of UTF-8.
        max_bytes: the most bytes of UTF-8.

    Raises:
        InvalidArgument: wrong type, empty, too long, or not valid UTF-8.
    """
    allowed = f"1 to {max_bytes} bytes of UTF-8"
    if not isinstance(value, (str, bytes)):
        raise wrong_type(field, value, allowed)
    if not value:
        raise InvalidArgument(f"{field} is empty.", field=field, allowed=allowed)
    data = _encoded(field, value) if isinstance(value, str) else value
    if len(data) > max_bytes:
        raise InvalidArgument(f"{field} is too long: {len(data)} bytes.", field=field, allowed=allowed)
    return value if isinstance(value, str) else _decoded(field, data)


def _encoded(field: str, value: str) -> bytes:
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _not_unicode(field, f"character {error.start}") from None


def _decoded(field: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_unicode(field, f"byte {error.start}") from None


def _not_unicode(field: str, place: str) -> InvalidArgument:
    return InvalidArgument(f"{field} is not valid UTF-8 at {place}.", field=field, allowed="valid UTF-8")


def identifier(field: str, value: object, max_bytes: int) -> str:
    """A name that a client gives to a session or a request: text of printable characters only.

    Raises:
        InvalidArgument: as `text` does, or a control or other unprintable character.
    """
    name = text(field, value, max_bytes)
    if not name.isprintable():
        raise InvalidArgument(
            f"{field} has a character that cannot be printed.",
            field=field,
            allowed=f"1 to {max_bytes} bytes of printable UTF-8",
        )
    return name


def boolean(field: str, value: object) -> bool:
    """A boolean, or the words true and false in any case.

    Raises:
        InvalidArgument: anything else.
    """
    if isinstance(value, bool):
        return value
    allowed = "true or false"
    if not isinstance(value, str):
        raise wrong_type(field, value, allowed)
    word = value.lower()
    if word not in {"true", "false"}:
        raise InvalidArgument(f"{field} is a string that is no boolean.", field=field, allowed=allowed)
    return word == "true"


def integer(field: str, value: object, minimum: int, maximum: int) -> int:
    """An integer, or a string of decimal digits, from `minimum` to `maximum`, both included.

    Raises:
        InvalidArgument: wrong type, no integer, or out of range.
    """
    allowed = f"integer from {minimum} to {maximum}"
    if isinstance(value, str):
        if not _DECIMAL.fullmatch(value):
            raise InvalidArgument(f"{field} is a string that is no integer.", field=field, allowed=allowed)
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(field, value, allowed)
    if not minimum <= value <= maximum:
        size = str(value) if value.bit_length() <= _MAX_SHOWN_BITS else f"of {value.bit_length()} bits"
        raise InvalidArgument(f"{field} is {size}, out of range.", field=field, allowed=allowed)
    return value

"""Reading JSON that a client wrote, more strictly than `json.loads`.

Refuses what is ambiguous or costly: a key given twice, NaN and infinity, integers beyond 64 bits, nesting
deeper than any field needs, strings that are not valid Unicode. Does not know what a document should hold.
Error texts name the field and a place in it, never what stands there.
"""

from __future__ import annotations

import json
import math
from typing import NoReturn

from folio_backend.errors import InvalidArgument

_MAX_DEPTH = 16
_MAX_NUMBER_CHARACTERS = 20  # of an integer of 64 bits, with its sign


def parse_json_document(field: str, document: str) -> object:
    """The value that a JSON document holds.

    Args:
        field: the field the document came in, for the error.
        document: the JSON, its length already checked.

    Raises:
        InvalidArgument: not JSON, or JSON of a kind that is refused (see the module).
    """
    reader = _Reader(field)
    try:
        value = json.loads(
            document,
            object_pairs_hook=reader.read_object,
            parse_int=reader.read_integer,
            parse_float=reader.read_number,
            parse_constant=reader.refuse_constant,
        )
    except json.JSONDecodeError as error:
        raise reader.refusal(f"is not valid JSON at character {error.pos}") from None
    except RecursionError:
        raise reader.too_deep() from None
    reader.check_tree(value)
    return value


class _Reader:
    """The hooks of `json.loads`; each refuses in the name of one field."""

    def __init__(self, field: str) -> None:
        self._field = field

    def refusal(self, what: str) -> InvalidArgument:
        return InvalidArgument(f"{self._field} {what}.", field=self._field, allowed="a JSON document")

    def too_deep(self) -> InvalidArgument:
        return self.refusal(f"is JSON nested deeper than {_MAX_DEPTH} levels")

    def read_object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        members = dict(pairs)
        if len(members) != len(pairs):
            raise self.refusal("is JSON that holds a key twice")
        return members

    def read_integer(self, digits: str) -> int:
        if len(digits) > _MAX_NUMBER_CHARACTERS:
            raise self.refusal(f"is JSON with an integer of {len(digits)} characters")
        return int(digits)

    def read_number(self, digits: str) -> float:
        number = float(digits)
        if not math.isfinite(number):
            raise self.refusal("is JSON with a number too large for 64 bits")
        return number

    def refuse_constant(self, _constant: str) -> NoReturn:
        raise self.refusal("is JSON with NaN or infinity")

    def check_tree(self, value: object) -> None:
        """Refuses deep nesting and strings that are not Unicode, level by level, without recursion."""
        level = [value]
        for _ in range(_MAX_DEPTH + 1):
            for item in level:
                self._check_strings(item)
            level = [child for item in level for child in _children(item)]
            if not level:
                return
        raise self.too_deep()

    def _check_strings(self, item: object) -> None:
        texts = item.keys() if isinstance(item, dict) else (item,) if isinstance(item, str) else ()
        if not all(map(_is_unicode, texts)):
            raise self.refusal("is JSON with half of a surrogate pair")


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _children(item: object) -> list[object]:
    if isinstance(item, dict):
        return list(item.values())
    return item if isinstance(item, list) else []

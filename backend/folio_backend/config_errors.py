"""The sentences that stop a model from loading because of its settings.

Knows how to say what is wrong with a setting and what is allowed instead. Does not know which settings there
are: the caller hands over names, values and declarations.
"""

from __future__ import annotations

import difflib
import types
from typing import TYPE_CHECKING, Any, Final, Literal, Union, get_args, get_origin

from pydantic import SecretStr

from folio_backend.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from pydantic import ValidationError
    from pydantic.fields import FieldInfo

MAX_SHOWN_CHARACTERS: Final = 80
_ANNOTATIONS_IN_WORDS: Final[Mapping[Any, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    SecretStr: "a text",
}


def refuse_unknown(kind: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raises for names that are none of `known`, with those that come near.

    Args:
        kind: what the names are, as the text calls them.
        names: the names that were given.
        known: the names that there are.

    Raises:
        ConfigurationError: at least one name is unknown.
    """
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ConfigurationError(" ".join(_unknown_sentence(kind, name, known) for name in unknown))


def refuse_not_available(settings: Sequence[str]) -> None:
    """Raises when a setting asks for what this version does not have."""
    if settings:
        raise ConfigurationError(
            f"This version of Folio does not have what {_listed(settings)} asks for; "
            "allowed: leave it out, or switch it off."
        )


def refuse_foreign(task: str, settings: Sequence[str]) -> None:
    """Raises when settings were given that the other task alone has."""
    if settings:
        raise ConfigurationError(
            f"A model of task {task} has no {_listed(settings)}; allowed: leave it out, or change the task."
        )


def refuse_missing(task: str, settings: Sequence[str]) -> None:
    """Raises when settings are absent that the task needs."""
    if settings:
        raise ConfigurationError(f"A model of task {task} needs {_listed(settings)} in its parameters.")


def describe_invalid_values(
    error: ValidationError,
    values: Mapping[str, object],
    origins: Mapping[str, str],
    fields: Mapping[str, FieldInfo],
) -> str:
    """One sentence for every setting that `error` names.

    Args:
        error: what validation said.
        values: setting to the value that was given; the value of a secret is not repeated.
        origins: setting to where its value comes from.
        fields: setting to its declaration.
    """
    details = error.errors(include_input=False, include_url=False)
    names = dict.fromkeys(str(detail["loc"][0]) for detail in details)
    return " ".join(_invalid_sentence(name, values, origins, fields[name]) for name in names)


def allowed_values(field: FieldInfo) -> str:
    """What a setting may hold, in words."""
    annotation = _without_none(field.annotation)
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(annotation))
    lower = _bound(field, "ge")
    upper = _bound(field, "le")
    words = _ANNOTATIONS_IN_WORDS[annotation]
    if lower is not None and upper is not None:
        return f"{lower}" if lower == upper else f"{words} from {lower} to {upper}"
    if lower is not None:
        return f"{words}, at least {lower}"
    return f"{words} that is not empty" if _bound(field, "min_length") else words


def _unknown_sentence(kind: str, name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.8)  # high: names share a prefix
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(sorted(known))}."
    return f"The {kind} {_shown(name)} is unknown; {hint}"


def _invalid_sentence(name: str, values: Mapping[str, object], origins: Mapping[str, str], field: FieldInfo) -> str:
    if name not in values:
        return f"The parameter {name} is missing; allowed: {allowed_values(field)}."
    value = "secret and invalid" if _without_none(field.annotation) is SecretStr else _shown(values[name])
    return f"The {origins[name]} is {value}; allowed: {allowed_values(field)}."


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in {Union, types.UnionType}:
        (annotation,) = (member for member in get_args(annotation) if member is not type(None))
    return annotation


def _bound(field: FieldInfo, kind: str) -> float | None:
    bounds = (getattr(constraint, kind, None) for constraint in field.metadata)
    return next((bound for bound in bounds if bound is not None), None)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}..."


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)

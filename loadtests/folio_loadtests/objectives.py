"""What is promised of the server, and whether a run kept it. From arguments or a TOML file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from folio_loadtests.errors import RunError
from folio_loadtests.workload import problems, read_toml

Seconds: TypeAlias = Annotated[float, Field(gt=0)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]


class Objectives(BaseModel):
    """Bounds on a run.

    Attributes:
        p95_first_token_s: at most, from the intended start, in seconds.
        p95_inter_token_s: at most, over all pauses between two tokens, in seconds.
        error_rate: failed requests over all that were asked, at most.
        goodput: generations answered well and within both bounds above, over all that were asked, at least. A refused
            one is not answered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    p95_first_token_s: Seconds = 1.0
    p95_inter_token_s: Seconds = 0.2
    error_rate: Share = 0.01
    goodput: Share = 0.9


@dataclass(frozen=True)
class Reached:
    """What a run reached; NaN where there was nothing to measure."""

    p95_first_token_s: float
    p95_inter_token_s: float
    error_rate: float
    goodput: float


@dataclass(frozen=True)
class Objective:
    """One bound and how it went.

    Attributes:
        name: as in `Objectives`.
        bound: what was promised.
        reached: what was measured.
        is_met: whether that is within the bound; what was not measured is.
    """

    name: str
    bound: float
    reached: float
    is_met: bool


def read_objectives(path: Path | None, arguments: Mapping[str, float | None]) -> Objectives:
    """The objectives of a file, or the defaults, with the arguments that were given instead of theirs.

    Raises:
        RunError: the file cannot be read, or a bound is none; the text names each field.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    content = {} if path is None else read_toml(path)
    try:
        return Objectives.model_validate(content | given)
    except ValidationError as error:
        raise RunError(f"{path or 'objectives'}: {problems(error)}") from None


def judge_objectives(objectives: Objectives, reached: Reached) -> tuple[Objective, ...]:
    """Each objective with what was reached."""
    judged = []
    for name, bound in objectives.model_dump().items():
        value = getattr(reached, name)
        is_met = math.isnan(value) or (value >= bound if name == "goodput" else value <= bound)
        judged.append(Objective(name, bound, value, is_met))
    return tuple(judged)

"""What the virtual users do: kinds, weights, lengths and texts, read from a TOML file.

Knows the file's form and its bounds. Does not know how requests are sent.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from folio_loadtests.errors import RunError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_FILE = Path(__file__).parent / "workload.toml"

Kind: TypeAlias = Literal["chat", "one_shot", "document", "attention", "probe"]
Count: TypeAlias = Annotated[int, Field(ge=1)]
Seconds: TypeAlias = Annotated[float, Field(ge=0, le=3600)]


class _Values(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KindOfUser(_Values):
    """One kind of user.

    Attributes:
        weight: its share of the users; 0 leaves the kind out.
        think_time_s: mean pause between two requests of a user, in seconds; drawn from half to one and a half of it.
        max_tokens: tokens to generate in one answer.
        num_turns: requests to a session, before the user begins another.
    """

    weight: Annotated[int, Field(ge=0, le=1000)] = 1
    think_time_s: Seconds = 1.0
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 16
    num_turns: Annotated[int, Field(ge=1, le=1000)] = 1


class AttentionShape(_Values):
    """The attention model's shape, and how many tokens a session's first step brings."""

    num_heads: Count = 9
    num_kv_heads: Count = 3
    head_dim: Count = 64
    dtype: Literal["float16", "float32"] = "float32"
    num_prompt_tokens: Count = 48

    @model_validator(mode="after")
    def _heads_divide(self) -> AttentionShape:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads is {self.num_heads}: allowed is a multiple of num_kv_heads")
        return self


class Checks(_Values):
    """The comparison of resumed sessions with a reference that was never evicted.

    Attributes:
        share: which part of the chat sessions is compared; 0 compares none.
        num_conversations: different ones, each with a reference of its own.
        num_turns: turns of each; the last one's answer is compared.
        max_tokens: tokens that are compared.
    """

    share: Annotated[float, Field(ge=0, le=1)] = 0.2
    num_conversations: Annotated[int, Field(ge=1, le=64)] = 4
    num_turns: Annotated[int, Field(ge=2, le=20)] = 3
    max_tokens: Annotated[int, Field(ge=1, le=256)] = 12


class Texts(_Values):
    """What users say; each is picked at random.

    Attributes:
        system: begins every chat.
        openings: first messages of a chat, and prompts of one-shot generations.
        follow_ups: further messages.
        replies: what the model is made to have said in the conversations that are compared.
        document_sentences: a document is made of these, in random order.
        num_document_sentences: how long it is.
    """

    system: Annotated[str, Field(min_length=1)]
    openings: Annotated[tuple[str, ...], Field(min_length=1)]
    follow_ups: Annotated[tuple[str, ...], Field(min_length=1)]
    replies: Annotated[tuple[str, ...], Field(min_length=1)]
    document_sentences: Annotated[tuple[str, ...], Field(min_length=1)]
    num_document_sentences: Count = 40


class Workload(_Values):
    """The whole file."""

    users: dict[Kind, KindOfUser]
    texts: Texts
    attention: AttentionShape = AttentionShape()
    checks: Checks = Checks()

    @model_validator(mode="after")
    def _somebody_asks(self) -> Workload:
        if not any(user.weight for user in self.users.values()):
            raise ValueError("users: at least one kind needs a weight above 0")
        return self


def read_workload(path: Path) -> Workload:
    """The workload in a TOML file.

    Raises:
        RunError: it cannot be read, or says what is not allowed; the text names each field.
    """
    try:
        return Workload.model_validate(read_toml(path))
    except ValidationError as error:
        raise RunError(f"{path}: {problems(error)}") from None


def read_toml(path: Path) -> dict[str, object]:
    """A TOML file's content; raises RunError where there is none."""
    try:
        with path.open("rb") as file:
            content: dict[str, object] = tomllib.load(file)
            return content
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None


def problems(error: ValidationError) -> str:
    """Each field that is wrong, what it holds, and why; one sentence."""
    found = (
        f"{'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_context=False)
    )
    return "; ".join(found)

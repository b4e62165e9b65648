"""Text to token ids and back, for one model.

Knows the tokenizer, its chat template and which tokens end a text. Does not know sessions or sampling.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from folio_backend.errors import InvalidArgument
from folio_backend.generation import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from folio_backend.request import GenerateRequest, Message


class TextTokenizer:
    """A Hugging Face tokenizer and what ends a text.

    Args:
        tokenizer: any that transformers loads.
        eos_token_ids: tokens that end a text, besides the tokenizer's own.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, eos_token_ids: Iterable[int] = ()) -> None:
        self._tokenizer = tokenizer
        own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        self.eos_token_ids: frozenset[int] = frozenset((*eos_token_ids, *own))

    def prompt(self, request: GenerateRequest) -> Prompt:
        """The request's text or messages as token ids.

        Raises:
            InvalidArgument: the model has no chat template, or its template refuses the messages.
        """
        if request.messages is not None:
            text = self._render(request.messages)
            return Prompt(self._encode(text), is_whole_history=True, text=text)
        assert request.text is not None
        alone = self._encode(request.text)
        with_start: list[int] = self._tokenizer(request.text).input_ids
        num_start = len(with_start) - len(alone)
        starts = with_start[:num_start] if with_start[num_start:] == alone else []
        return Prompt(alone, start_token_ids=starts, text=request.text)

    def _encode(self, text: str) -> list[int]:
        token_ids: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids
        return token_ids

    def _render(self, messages: Sequence[Message]) -> str:
        if self._tokenizer.chat_template is None:
            raise InvalidArgument(
                "The model has no chat template.", field="messages", allowed="text_input for this model"
            )
        conversation = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text = self._tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        except TemplateError:
            raise InvalidArgument(
                f"The model's chat template refuses these {len(messages)} messages.",
                field="messages",
                allowed="roles in an order that the template accepts",
            ) from None
        return str(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""
        return self._decode(token_ids, skip_special_tokens=True)

    def decode_all(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, special tokens written out."""
        return self._decode(token_ids, skip_special_tokens=False)

    def _decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        return str(
            self._tokenizer.decode(
                list(token_ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
            )
        )

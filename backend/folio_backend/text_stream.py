"""The text of one choice as it grows: token ids in, text that may be sent out.

Knows how to decode a growing list of tokens at a bounded cost per token, when a character is whole, and where
a stop string ends the text. Does not know requests, tensors, or why a choice ends otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Decode = Callable[[Sequence[int]], str]

# What a decoder writes for bytes that are no character: the rest of a character may still come.
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Tokens to wait for the rest of a character. UTF-8 needs 3; more of them say that no character will come.
_MAX_PENDING_TOKENS = 8
# Tokens, of a byte or more each, after which a decoder that began inside a character is in step again.
_CONTEXT_TOKENS = 4


class TextStream:
    """One choice's text, told in pieces that never have to be taken back.

    The pieces add up to `decode` of all tokens, less the text of `context_token_ids`, cut at the first stop
    string to be complete in it (of two that are complete at once the longer). A piece ends neither inside a
    character nor inside what may become a stop string.

    One exception: a decoder that gives up all characters of a run of bytes because a later byte is bad (byte
    fallback does) cannot take back those that are out; they stay, and the bad bytes follow.

    Args:
        decode: the tokenizer's decode, without clean-up of spaces, which would change text already sent.
        stop: strings that end the text.
        include_stop: leave the matched stop string in the text.
        min_tokens: stop strings that are complete within this many tokens do not count.
        context_token_ids: the tokens before the first one, for tokenizers whose words begin with a space.
    """

    def __init__(
        self,
        decode: Decode,
        stop: tuple[str, ...],
        include_stop: bool,
        *,
        min_tokens: int = 0,
        context_token_ids: Sequence[int] = (),
    ) -> None:
        self._decoder = _WindowDecoder(decode, context_token_ids)
        self._stop = stop
        self._include_stop = include_stop
        self._min_tokens = min_tokens
        self._num_tokens = 0
        self._held = ""  # decoded, not sent: it may be the beginning of a stop string
        self._stopped: str | None = None
        self._num_characters = 0

    @property
    def stopped(self) -> str | None:
        """The stop string that ended the text, or None."""
        return self._stopped

    @property
    def num_characters(self) -> int:
        """Characters returned so far."""
        return self._num_characters

    def push(self, token_id: int) -> str:
        """Take the next token; returns what may be sent now, nothing once a stop string has matched."""
        self._num_tokens += 1
        if self._stopped is not None:
            return ""
        return self._sent(self._until_stop(self._decoder.push(token_id)))

    def finish(self) -> str:
        """The rest of the text, after the last token."""
        if self._stopped is not None:
            return ""
        text = self._until_stop(self._decoder.finish()) + self._held
        self._held = ""
        return self._sent(text)

    def _sent(self, text: str) -> str:
        self._num_characters += len(text)
        return text

    def _until_stop(self, new_text: str) -> str:
        """What may be sent of the held and the new text; the rest is held, or dropped at a stop string."""
        text = self._held + new_text
        match = None
        if self._num_tokens > self._min_tokens:
            match = _first_match(text, self._stop, len(self._held))
        if match is None:
            num_sent = len(text) - _num_held(text, self._stop)
            self._held = text[num_sent:]
            return text[:num_sent]
        start, self._stopped = match
        self._held = ""
        return text[: start + len(self._stopped)] if self._include_stop else text[:start]


class _WindowDecoder:
    """Decodes a growing list of tokens through a window of the last few.

    The window holds tokens whose text is out, for context, then those whose text is pending. What is new is
    what the window's text has beyond its beginning, the part that is out.
    """

    def __init__(self, decode: Decode, context_token_ids: Sequence[int]) -> None:
        self._decode = decode
        self._window = list(context_token_ids)
        self._num_context = len(self._window)
        self._text = self._text_out = decode(self._window) if self._window else ""

    def push(self, token_id: int) -> str:
        """The text that the token makes final; empty while a character is unfinished."""
        text = self._decode([*self._window, token_id])
        if text == self._text and not self._decode([token_id, token_id]):
            return ""  # a special token that is skipped: in the window it would only push the context out
        self._window.append(token_id)
        self._text = text
        if not text.endswith(_REPLACEMENT):
            return self._advance()
        if len(self._window) - self._num_context > _MAX_PENDING_TOKENS:
            return self._advance_within_broken_bytes()
        return ""

    def finish(self) -> str:
        """The text still pending, with replacement characters for what never became a character."""
        return self._pending_text()

    def _pending_text(self) -> str:
        if self._text.startswith(self._text_out):
            return self._text[len(self._text_out) :]
        # Some decoders give up every character of a run of bytes that ends badly, also those that are out.
        return self._decode(self._window[self._num_context :])

    def _advance(self) -> str:
        """Everything is out; the tokens that were pending are the next context."""
        new_text = self._pending_text()
        self._window = self._window[self._num_context :]
        self._num_context = len(self._window)
        self._text = self._text_out = self._decode(self._window)
        return new_text

    def _advance_within_broken_bytes(self) -> str:
        """All is out but the last replacement character: of many in a row only that one can still change."""
        new_text = self._pending_text().removesuffix(_REPLACEMENT)
        self._window = self._window[-_CONTEXT_TOKENS:]
        self._num_context, self._text = len(self._window), self._decode(self._window)
        self._text_out = self._text.removesuffix(_REPLACEMENT)
        return new_text


def _first_match(text: str, stop: tuple[str, ...], num_seen: int) -> tuple[int, str] | None:
    """Start and string of the match that is complete first, of those that end together the longest.

    Only matches that end after the first `num_seen` characters count.
    """
    starts = [text.find(string, max(0, num_seen - len(string) + 1)) for string in stop]
    matches = [(start + len(string), start, string) for start, string in zip(starts, stop, strict=True) if start >= 0]
    return min(matches)[1:] if matches else None


def _num_held(text: str, stop: tuple[str, ...]) -> int:
    """Length of the longest end of a text that begins a stop string without being all of it."""
    longest = max(map(len, stop), default=1) - 1
    for num in range(min(longest, len(text)), 0, -1):
        if any(len(string) > num and string.startswith(text[-num:]) for string in stop):
            return num
    return 0

"""Text as it streams: whole characters, stop strings, and the text that decoding everything at once gives."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from folio_backend.text_stream import TextStream

if TYPE_CHECKING:
    from collections.abc import Sequence

CORPUS = (
    "The quick brown fox jumps over the lazy dog. Stop here! END of text.\n\nUser: hello, hello\n",
    "你好，世界。こんにちは世界 안녕하세요 Привет, мир",
    "😀😃🎉 👩‍👩‍👧 naïve café — “quotes” …",
)
TEXTS = st.text(alphabet=st.sampled_from("".join(CORPUS)) | st.characters(codec="utf-8"), max_size=40)
STOPS = st.lists(
    st.text(alphabet="abeEND! \n好😀h", min_size=1, max_size=4) | st.sampled_from(["hello", "END", "世界", "🎉"]),
    max_size=4,
).map(tuple)


@cache
def byte_level_tokenizer() -> Tokenizer:
    """Byte-level BPE in the style of GPT-2 with few merges, so that most characters take several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        show_progress=False,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


@cache
def byte_fallback_tokenizer() -> Tokenizer:
    """Sentencepiece style: words begin with a mark for the space, unknown characters become byte tokens."""
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces += ["▁", "▁hello", "▁世", *"abcdefghijklmnopqrstuvwxyz!,.ND"]
    tokenizer = Tokenizer(
        models.BPE(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[], byte_fallback=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    return tokenizer


def streamed(
    tokenizer: Tokenizer, token_ids: Sequence[int], stop: tuple[str, ...] = (), *, include_stop: bool = False
) -> tuple[list[str], str | None]:
    """The pieces that a stream gives for these tokens, and the stop string that ended it."""
    stream = TextStream(tokenizer.decode, stop, include_stop)
    pieces = []
    for token_id in token_ids:
        pieces.append(stream.push(token_id))
        if stream.stopped is not None:
            break
    pieces.append(stream.finish())
    assert stream.num_characters == sum(map(len, pieces))
    return pieces, stream.stopped


def letters(token_ids: Sequence[int]) -> str:
    """The decode of a tokenizer whose token ids are code points."""
    return "".join(map(chr, token_ids))


def cut_at_stop(text: str, stop: tuple[str, ...], *, include_stop: bool) -> str:
    """What is left of a text when it is read letter by letter and ends with the first stop string seen."""
    for length in range(1, len(text) + 1):
        ended = [string for string in stop if text[:length].endswith(string)]
        if ended:
            return text[:length] if include_stop else text[: length - max(map(len, ended))]
    return text


TOKENIZERS = pytest.mark.parametrize("tokenizer", [byte_level_tokenizer(), byte_fallback_tokenizer()])


@TOKENIZERS
@given(text=TEXTS)
def test_pieces_add_up_to_the_decoded_text(tokenizer: Tokenizer, text: str) -> None:
    token_ids = tokenizer.encode(text).ids
    pieces, stopped = streamed(tokenizer, token_ids)
    assert "".join(pieces) == tokenizer.decode(token_ids)
    assert stopped is None


@TOKENIZERS
@given(text=TEXTS, ends=st.lists(st.integers(0, 40), max_size=6))
def test_skipped_special_tokens_change_nothing(tokenizer: Tokenizer, text: str, ends: list[int]) -> None:
    token_ids = tokenizer.encode(text).ids
    end = tokenizer.token_to_id("<|end|>") or tokenizer.token_to_id("</s>") or 0
    for place in ends:
        token_ids.insert(place, end)
    assert "".join(streamed(tokenizer, token_ids)[0]) == tokenizer.decode(token_ids)


@given(token_ids=st.lists(st.integers(1, 329), max_size=60))
def test_bytes_that_are_no_text_add_up_too(token_ids: list[int]) -> None:
    tokenizer = byte_level_tokenizer()
    assert "".join(streamed(tokenizer, token_ids)[0]) == tokenizer.decode(token_ids)


@given(text=TEXTS, num_broken=st.integers(0, 30))
def test_text_after_many_broken_bytes_is_whole_again(text: str, num_broken: int) -> None:
    tokenizer = byte_level_tokenizer()
    continuation = tokenizer.encode("🦊").ids[-1]
    token_ids = [*[continuation] * num_broken, *tokenizer.encode("🦊🦊" + text).ids]
    assert "".join(streamed(tokenizer, token_ids)[0]) == tokenizer.decode(token_ids)


@TOKENIZERS
@given(text=TEXTS)
def test_no_piece_ends_inside_a_character(tokenizer: Tokenizer, text: str) -> None:
    token_ids = tokenizer.encode(text.replace("\N{REPLACEMENT CHARACTER}", "")).ids
    pieces, _ = streamed(tokenizer, token_ids)
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces)


def test_a_character_comes_with_its_last_token() -> None:
    tokenizer = byte_level_tokenizer()
    token_ids = tokenizer.encode("🦊").ids
    assert len(token_ids) > 1
    stream = TextStream(tokenizer.decode, (), include_stop=False)
    assert [stream.push(token_id) for token_id in token_ids] == [""] * (len(token_ids) - 1) + ["🦊"]


def test_an_unfinished_character_is_shown_at_the_end_alone() -> None:
    tokenizer = byte_level_tokenizer()
    pieces, _ = streamed(tokenizer, tokenizer.encode("ok 🦊").ids[:-1])
    assert "".join(pieces[:-1]) == "ok "
    assert pieces[-1] == "\N{REPLACEMENT CHARACTER}"


def test_characters_that_are_out_survive_a_broken_run_of_fallback_bytes() -> None:
    tokenizer = byte_fallback_tokenizer()
    token_ids = tokenizer.encode("a😀😀").ids[:-1]
    assert "".join(streamed(tokenizer, token_ids)[0]) == "a😀" + "\N{REPLACEMENT CHARACTER}" * 3


@TOKENIZERS
@given(text=TEXTS, stop=STOPS, include_stop=st.booleans())
def test_text_ends_at_the_first_stop_string(
    tokenizer: Tokenizer, text: str, stop: tuple[str, ...], include_stop: bool
) -> None:
    token_ids = tokenizer.encode(text).ids
    pieces, stopped = streamed(tokenizer, token_ids, stop, include_stop=include_stop)
    whole = tokenizer.decode(token_ids)
    assert "".join(pieces) == cut_at_stop(whole, stop, include_stop=include_stop)
    assert (stopped is not None) == any(string in whole for string in stop)


@given(text=st.text("abc", max_size=40), stop=st.lists(st.text("abc", min_size=1, max_size=4), max_size=4))
def test_what_may_become_a_stop_string_is_held_and_nothing_else(text: str, stop: list[str]) -> None:
    stream = TextStream(letters, tuple(stop), include_stop=False)
    sent = ""
    for num_letters, letter in enumerate(text, start=1):
        sent += stream.push(ord(letter))
        if stream.stopped is not None:
            break
        so_far = text[:num_letters]
        beginnings = {string[:length] for string in stop for length in range(1, len(string))}
        possible = [start for start in range(num_letters) if so_far[start:] in beginnings]
        assert sent == so_far[: min(possible, default=num_letters)]
    assert sent + stream.finish() == cut_at_stop(text, tuple(stop), include_stop=False)


@pytest.mark.parametrize(("stop", "expected"), [(("END",), "the "), (("the END", "END"), ""), (("nd", "END"), "the ")])
def test_the_stop_string_that_is_complete_first_wins(stop: tuple[str, ...], expected: str) -> None:
    tokenizer = byte_level_tokenizer()
    pieces, stopped = streamed(tokenizer, tokenizer.encode("the END and").ids, stop)
    assert "".join(pieces) == expected
    assert stopped in stop


def test_text_held_for_a_stop_string_comes_when_it_does_not_match_and_at_the_end() -> None:
    stream = TextStream(letters, ("END",), include_stop=False)
    assert [stream.push(ord(letter)) for letter in "aENxE"] == ["a", "", "", "ENx", ""]
    assert stream.finish() == "E"


def test_nothing_comes_after_a_stop_string() -> None:
    stream = TextStream(letters, ("b",), include_stop=True)
    assert [stream.push(ord(letter)) for letter in "abc"] == ["a", "b", ""]
    assert stream.finish() == ""
    assert (stream.stopped, stream.num_characters) == ("b", 2)


def test_of_stop_strings_in_one_token_the_one_that_is_complete_first_wins() -> None:
    stream = TextStream(lambda token_ids: "xabcd" * len(token_ids), ("abcd", "bc"), include_stop=True)
    assert (stream.push(0), stream.stopped) == ("xabc", "bc")


def test_stop_strings_do_not_count_before_min_tokens() -> None:
    stream = TextStream(letters, ("b", "xyz"), include_stop=False, min_tokens=2)
    assert [stream.push(ord(letter)) for letter in "abab"] == ["a", "b", "a", ""]
    assert stream.stopped == "b"


def test_a_stop_string_of_the_first_min_tokens_does_not_count_later_either() -> None:
    stream = TextStream(letters, ("abc", "b"), include_stop=False, min_tokens=2)
    pieces = [stream.push(ord(letter)) for letter in "abxb"]
    assert (pieces, stream.stopped) == (["", "", "abx", ""], "b")


def test_the_first_word_keeps_its_space_after_context() -> None:
    tokenizer = byte_fallback_tokenizer()
    word = tokenizer.token_to_id("▁hello")
    assert word is not None
    alone = TextStream(tokenizer.decode, (), include_stop=False)
    after = TextStream(tokenizer.decode, (), include_stop=False, context_token_ids=[word, word])
    assert (alone.push(word), after.push(word)) == ("hello", " hello")


@TOKENIZERS
@given(token_ids=st.lists(st.integers(0, 280), min_size=200, max_size=400))
def test_the_cost_of_a_token_does_not_grow_with_the_text(tokenizer: Tokenizer, token_ids: list[int]) -> None:
    lengths: list[int] = []

    def decode(window: Sequence[int]) -> str:
        lengths.append(len(window))
        return tokenizer.decode(window)

    stream = TextStream(decode, ("never",), include_stop=False)
    nums_calls = [0]
    for token_id in token_ids:
        stream.push(token_id)
        nums_calls.append(len(lengths))
    assert max(lengths) < 40
    assert max(after - before for before, after in pairwise(nums_calls)) <= 3

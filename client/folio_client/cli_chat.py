"""`folio chat`: a conversation in a session, with commands that begin with a slash.

Knows lines, messages and one session at a time. What a turn costs is shown after it.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack, suppress

from folio_client.cli_commands import sampling_options
from folio_client.cli_output import Output, result_members, usage_line
from folio_client.cli_tables import stats_table
from folio_client.cli_transcript import Transcript
from folio_client.client import Client
from folio_client.errors import FolioError, NotFound
from folio_client.options import GenerateOptions
from folio_client.session import Session
from folio_client.types import Message

DEFAULT_MAX_TOKENS = 512
HELP = """\
/stats        what the server holds
/fork [NAME]  go on in a copy of the session; the original stays as it is
/help         this
/quit         the end, as is Ctrl-D
Ctrl-C ends an answer that is being given."""


def chat(client: Client, given: argparse.Namespace, output: Output) -> int:
    """Reads lines and answers them until there are no more."""
    with ExitStack() as sessions:
        conversation = Conversation(client, given, output, sessions)
        output.note(f"session {conversation.session_id}; /help lists the commands")
        while (line := _read_line(is_silent=output.is_json)) not in {None, "/quit"}:
            try:
                conversation.take(str(line))
            except FolioError as error:
                output.error(error)
    return 0


class Conversation:
    """What has been said, and the session that holds it.

    Args:
        client: the server.
        given: the command line.
        output: where answers go.
        sessions: ends the sessions, unless they are to be kept.
    """

    def __init__(self, client: Client, given: argparse.Namespace, output: Output, sessions: ExitStack) -> None:
        self._client = client
        self._output = output
        self._sessions = sessions
        self._keep = bool(given.keep)
        self._options: GenerateOptions = {"max_tokens": DEFAULT_MAX_TOKENS, **sampling_options(given)}
        self._transcript = Transcript(given.transcript)
        self._messages = self._transcript.read()
        if given.system is not None and not self._messages:
            self._messages.append({"role": "system", "content": given.system})
        self._session: Session = sessions.enter_context(_session(client, given.session, keep=self._keep))

    @property
    def session_id(self) -> str:
        """The session that the next turn goes to."""
        return self._session.session_id

    def take(self, line: str) -> None:
        """Carries out a command or answers a message.

        Raises:
            FolioError: the server refuses or fails; what was said before it stands.
        """
        command, _, argument = line.partition(" ")
        if command == "/stats":
            stats = self._client.admin.stats()
            self._output.show(stats.document, stats_table(stats))
        elif command == "/fork":
            self._fork(argument.strip() or None)
        elif command == "/help":
            self._output.show({"commands": HELP.splitlines()}, HELP.replace("[", "\\["))
        elif command.startswith("/"):
            self._output.note(f"There is no command {command}; /help lists them.")
        elif line.strip():
            self._answer(line)

    def _fork(self, name: str | None) -> None:
        original = self.session_id
        self._session = self._sessions.enter_context(self._session.fork(name, keep=self._keep))
        members = {"session_id": self.session_id, "forked_from": original}
        self._output.show(members, f"now in {self.session_id}, forked from {original}")

    def _answer(self, line: str) -> None:
        question: Message = {"role": "user", "content": line}
        with self._session.stream([*self._messages, question], **self._options) as stream:
            try:
                for delta in stream:
                    if not self._output.is_json:
                        self._output.piece(delta.text)
            except KeyboardInterrupt:
                self._output.note("\n(ended)")
        result = stream.result
        if not result.choices:
            return
        self._messages += [question, {"role": "assistant", "content": result.text}]
        self._transcript.write(self._messages)
        if self._output.is_json:
            self._output.document({**result_members(result), "session_id": self.session_id})
        else:
            self._output.piece("\n")
            self._output.note(usage_line(result))


def _session(client: Client, name: str | None, *, keep: bool) -> Session:
    """The session of that name where there is one already, else a new one: the messages say what it shall hold."""
    if name is not None:
        with suppress(NotFound):
            return client.session(name, resume=True, keep=keep)
    return client.session(name, keep=keep)


def _read_line(*, is_silent: bool) -> str | None:
    """The next line; None where there are no more."""
    prompt = "> " if sys.stdin.isatty() and not is_silent else ""
    try:
        return input(prompt)
    except EOFError:
        return None

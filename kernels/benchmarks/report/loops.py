"""The loops of a disassembled kernel, found by its flow: compilers lay parts of a kernel out behind its end.

Knows labels and branches as nvdisasm prints them, not what instructions do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

LABEL = re.compile(r"\s*(\.L_x_\d+):")
INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(.+)")
BRANCH = re.compile(r"(?P<condition>@!?U?P\w+\s+)?BRA\b(?P<operands>.*?)`\((?P<target>\.L_x_\d+)\)")
ENDS = ("EXIT", "RET.", "BRX", "BRA `(.L_x_")
"""What never goes on with the next instruction, unless there is a condition."""


@dataclass
class _Block:
    """Instructions that run one after the other, and the indices of blocks that may come next."""

    instructions: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    next: list[int] = field(default_factory=list)


def loops(disassembly: str) -> Iterator[list[str]]:
    """The instructions of each loop: all that lead back to its start without leaving through it."""
    blocks = _blocks(disassembly)
    dominators = _dominators(blocks)
    for last, block in enumerate(blocks):
        for first in block.next:
            if first in dominators[last]:
                yield [line for i in sorted(_body(blocks, first, last)) for line in blocks[i].instructions]


def _blocks(disassembly: str) -> list[_Block]:
    blocks = [_Block()]
    for line in disassembly.splitlines():
        if label := LABEL.match(line):
            if blocks[-1].instructions:
                blocks.append(_Block())
            blocks[-1].labels.append(label[1])
        elif instruction := INSTRUCTION.match(line):
            if blocks[-1].instructions and _ends_a_block(blocks[-1].instructions[-1]):
                blocks.append(_Block())
            blocks[-1].instructions.append(instruction[1])
    places = {label: index for index, block in enumerate(blocks) for label in block.labels}
    for index, block in enumerate(blocks):
        text = block.instructions[-1] if block.instructions else ""
        branch = BRANCH.match(text)
        if branch and branch["target"] in places:
            block.next.append(places[branch["target"]])
        if index + 1 < len(blocks) and not text.startswith(ENDS):
            block.next.append(index + 1)
    return blocks


def _ends_a_block(instruction: str) -> bool:
    return "BRA" in instruction or instruction.startswith(ENDS)


def _dominators(blocks: list[_Block]) -> list[set[int]]:
    """For each block those that every way from the first one to it goes through."""
    dominators = [set(range(len(blocks))) for _ in blocks]
    dominators[0] = {0}
    before = [[i for i, block in enumerate(blocks) if index in block.next] for index in range(len(blocks))]
    is_changing = True
    while is_changing:
        is_changing = False
        for index in range(1, len(blocks)):
            found = set.intersection(*(dominators[i] for i in before[index])) if before[index] else set()
            is_changing |= found | {index} != dominators[index]
            dominators[index] = found | {index}
    return dominators


def _body(blocks: list[_Block], first: int, last: int) -> set[int]:
    body, waiting = {first, last}, [last]
    while waiting:
        index = waiting.pop()
        if index != first:
            found = {i for i, block in enumerate(blocks) if index in block.next} - body
            body |= found
            waiting += found
    return body

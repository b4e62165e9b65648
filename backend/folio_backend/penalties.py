"""Changes to logits because of tokens that were seen or may not come: penalties and forbidden tokens.

Each works on the whole batch through the (row, token) entries that it concerns, so its cost follows the
number of tokens seen and not the vocabulary. Does not know requests nor how a token is drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence


def apply_repetition_penalty(
    logits: torch.Tensor, penalties: Sequence[float], token_ids: Sequence[Sequence[int]]
) -> None:
    """Divide the positive and multiply the negative logits of the tokens seen, once however often they occur.

    Args:
        logits: float32 [rows, vocabulary], written in place.
        penalties: one a row, above 0.
        token_ids: the tokens seen in each row; empty for a row without penalty.
    """
    entries = _entries(token_ids, logits.device)
    if entries is None:
        return
    # A token that occurs twice is written twice with the same value. In float64 the quotients stay finite.
    values = logits[entries]
    penalty = torch.tensor(penalties, dtype=torch.float64, device=logits.device)[entries[0]]
    penalised = torch.where(values > 0, values / penalty, values * penalty)
    logits[entries] = penalised.clamp(max=torch.finfo(torch.float32).max).float()


def apply_output_penalties(
    logits: torch.Tensor,
    frequency_penalties: Sequence[float],
    presence_penalties: Sequence[float],
    token_ids: Sequence[Sequence[int]],
) -> None:
    """Subtract from each token seen its frequency penalty per occurrence and its presence penalty once.

    Args:
        logits: float32 [rows, vocabulary], written in place.
        frequency_penalties: one a row.
        presence_penalties: one a row.
        token_ids: the tokens generated in each row; empty for a row without penalty.
    """
    entries = _entries(token_ids, logits.device)
    if entries is None:
        return
    frequency = torch.tensor(frequency_penalties, dtype=logits.dtype, device=logits.device)
    presence = torch.tensor(presence_penalties, dtype=logits.dtype, device=logits.device)
    logits.index_put_(entries, -frequency[entries[0]], accumulate=True)
    logits[entries] = logits[entries] - presence[entries[0]]


def forbid(logits: torch.Tensor, token_ids: Sequence[Sequence[int]]) -> None:
    """Set the logits of each row's `token_ids` to -inf, in place; logits are [rows, vocabulary]."""
    entries = _entries(token_ids, logits.device)
    if entries is not None:
        logits[entries] = -torch.inf


def _entries(token_ids: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Row and token of every token of every row, int64 [entries] each; None where there is none."""
    arrays = [np.asarray(row_token_ids, dtype=np.int64) for row_token_ids in token_ids]
    rows = np.repeat(np.arange(len(arrays)), [len(array) for array in arrays])
    if not rows.size:
        return None
    return torch.from_numpy(rows).to(device), torch.from_numpy(np.concatenate(arrays)).to(device)

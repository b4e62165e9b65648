"""A launch that fails costs only the step that made it fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from folio_backend.errors import Internal
from folio_kernels.pool import AttentionBatch
from tests.backend.attention_inputs import answer, expected_output, history, serving, sizes

FATAL_NUM_TOKENS = 7


def test_only_the_step_that_fails_alone_is_refused_and_it_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told = history(80)
    with serving() as service:
        for name in ("a", "b"):
            answer(service, told.part(0, 60).step(name))
        operations = service._launcher._operations
        attend = operations.attend

        def out_of_memory(layer: int, query: torch.Tensor, batch: AttentionBatch, scale: float) -> torch.Tensor:
            if FATAL_NUM_TOKENS in batch.num_new:
                raise torch.OutOfMemoryError
            return attend(layer, query, batch, scale)

        monkeypatch.setattr(operations, "attend", out_of_memory)
        fatal = told.part(0, FATAL_NUM_TOKENS)
        requests = [told.part(60, 80).step("a"), fatal.step("b"), fatal.step("new")]
        outcomes: list[Any] = service.execute(requests)
        assert isinstance(outcomes[1], Internal)
        assert "OutOfMemoryError" in outcomes[1].text()
        assert isinstance(outcomes[2], Internal)
        output = outcomes[0]["output"][0]
        np.testing.assert_allclose(output, expected_output(told, "none")[60:], rtol=0, atol=1e-4)
        assert sizes(service)[0] == {
            "sessions": [{"session_id": "b", "num_tokens": 60}, {"session_id": "a", "num_tokens": 80}]
        }
        service.check_integrity()
        output = answer(service, told.part(60, 80).step("b", 60))["output"][0]
        np.testing.assert_allclose(output, expected_output(told, "none")[60:], rtol=0, atol=1e-4)

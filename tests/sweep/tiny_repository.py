"""A model repository as small as can be: a random language model, and attention with one KV head; nothing compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.backend.tiny_models import llama_config, save_model

if TYPE_CHECKING:
    from pathlib import Path

GENERATE, ATTENTION = "tiny", "attention"
_GENERATE_CONFIG = """
backend: "folio"
instance_group [ {{ kind: KIND_AUTO, count: 1 }} ]
parameters {{ key: "task" value {{ string_value: "generate" }} }}
parameters {{ key: "model" value {{ string_value: "{model}" }} }}
parameters {{ key: "compile" value {{ string_value: "false" }} }}
"""
_ATTENTION_CONFIG = """
backend: "folio"
max_batch_size: 8
instance_group [ { kind: KIND_AUTO, count: 1 } ]
dynamic_batching { max_queue_delay_microseconds: 500 }
parameters { key: "task" value { string_value: "attention" } }
parameters { key: "num_heads" value { string_value: "2" } }
parameters { key: "num_kv_heads" value { string_value: "1" } }
parameters { key: "head_dim" value { string_value: "64" } }
parameters { key: "compile" value { string_value: "false" } }
input [
  { name: "session_id", data_type: TYPE_STRING, dims: [ 1 ], optional: true },
  { name: "query", data_type: TYPE_FP32, dims: [ -1, 2, 64 ], allow_ragged_batch: true, optional: true },
  { name: "key", data_type: TYPE_FP32, dims: [ -1, 1, 64 ], allow_ragged_batch: true, optional: true },
  { name: "value", data_type: TYPE_FP32, dims: [ -1, 1, 64 ], allow_ragged_batch: true, optional: true },
  { name: "position", data_type: TYPE_INT32, dims: [ 1 ], optional: true },
  { name: "op", data_type: TYPE_STRING, dims: [ 1 ], optional: true }
]
"""


def write_tiny_repository(folder: Path) -> Path:
    """The repository, in a new folder."""
    weights = save_model(folder / "weights", llama_config())
    for name, config in ((GENERATE, _GENERATE_CONFIG.format(model=weights)), (ATTENTION, _ATTENTION_CONFIG)):
        version = folder / "models" / name / "1"
        version.mkdir(parents=True)
        (version / ".gitkeep").touch()
        (version.parent / "config.pbtxt").write_text(config)
    return folder / "models"

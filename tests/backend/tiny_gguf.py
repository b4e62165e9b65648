"""Writes a complete language model as a GGUF file of some kilobytes: one layer, random weights, a byte tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gguf
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

HIDDEN, HEADS, KV_HEADS, MLP = 32, 2, 1, 64
# GPT-2's tokenizers spell bytes as printable characters; these spell themselves.
PRINTABLE = [chr(code) for code in range(33, 127)]
TOKENS = [*PRINTABLE, "he", "<|end|>"]
SHAPES = {
    "token_embd.weight": (len(TOKENS), HIDDEN),
    "output_norm.weight": (HIDDEN,),
    "output.weight": (len(TOKENS), HIDDEN),
    "blk.0.attn_norm.weight": (HIDDEN,),
    "blk.0.attn_q.weight": (HIDDEN, HIDDEN),
    "blk.0.attn_k.weight": (HIDDEN * KV_HEADS // HEADS, HIDDEN),
    "blk.0.attn_v.weight": (HIDDEN * KV_HEADS // HEADS, HIDDEN),
    "blk.0.attn_output.weight": (HIDDEN, HIDDEN),
    "blk.0.ffn_norm.weight": (HIDDEN,),
    "blk.0.ffn_gate.weight": (MLP, HIDDEN),
    "blk.0.ffn_up.weight": (MLP, HIDDEN),
    "blk.0.ffn_down.weight": (HIDDEN, MLP),
}


def write_tiny_gguf(path: Path, *, seed: int = 0, architecture: str = "llama") -> dict[str, npt.NDArray[np.float32]]:
    """Writes the file; the matrices are stored as Q8_0 blocks.

    Returns:
        What the stored values mean, fp32, by GGUF's names.
    """
    writer = gguf.GGUFWriter(path, architecture)
    _add_architecture(writer)
    _add_tokenizer(writer)
    random = np.random.default_rng(seed)
    values = {}
    for name, shape in SHAPES.items():
        value = random.standard_normal(shape, dtype=np.float32)
        kind = gguf.GGMLQuantizationType.Q8_0 if value.ndim > 1 else gguf.GGMLQuantizationType.F32
        stored = gguf.quants.quantize(value, kind)
        writer.add_tensor(name, stored, raw_dtype=kind)
        values[name] = gguf.quants.dequantize(stored, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def _add_architecture(writer: gguf.GGUFWriter) -> None:
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(1)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(len(TOKENS))


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(len(TOKENS) - 1)
    writer.add_eos_token_id(len(TOKENS) - 1)

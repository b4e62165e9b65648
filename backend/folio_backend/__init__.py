"""Folio's backend: language models and attention behind Triton Inference Server, over a paged, compressed KV cache."""

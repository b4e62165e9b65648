"""The paged, compressed KV cache's memory format and the operations on it."""

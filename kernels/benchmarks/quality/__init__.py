"""What compression costs a model: perplexity, KL divergence and top-1 agreement against the uncompressed cache."""

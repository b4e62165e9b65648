"""`folio-server`: starts a Triton Inference Server with Folio in it, watches over it, cleans up after it."""

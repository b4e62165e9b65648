"""`make sweep`: perf_analyzer over Folio's models, level by level. The client's side of the wire only."""

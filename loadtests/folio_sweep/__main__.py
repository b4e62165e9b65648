"""`python -m folio_sweep`."""

from folio_sweep.main import main

main()

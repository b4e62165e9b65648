"""Where the project's files are that belong to no package: in a checkout, or where an installed wheel put them."""

from __future__ import annotations

import sys
from pathlib import Path


def project_folder() -> Path:
    """The folder with `backend/model.py` and `model_repository/`."""
    checkout = Path(__file__).resolve().parents[3]
    return checkout if (checkout / "backend/model.py").exists() else Path(sys.prefix) / "share/folio"

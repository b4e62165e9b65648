"""What the server loads: it looks for a class of this name in a module of this name."""

from folio_backend.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]

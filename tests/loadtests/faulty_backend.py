"""A copy of the backend, altered for these tests alone, that can be made slow or wrong while it runs.

Nothing of this is in the product: the copy's lines are changed here, and each asks for a file that a test creates.
"""

from __future__ import annotations

import shutil
from pathlib import Path

BACKEND = Path(__file__).parents[2] / "backend"

SLOW_S = 0.15


class FaultyBackend:
    """The copy.

    Args:
        folder: where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "backend"
        shutil.copytree(BACKEND, self._folder, ignore=shutil.ignore_patterns("__pycache__"))
        self._slow, self._wrong = folder / "slow", folder / "wrong"
        package = self._folder / "folio_backend"
        _insert(
            package / "engine.py",
            f"        if __import__('os').path.exists({str(self._slow)!r}):\n            time.sleep({SLOW_S})\n",
            before="        schedule = self._schedule()\n",
        )
        # Behind what was found in the cache the same page is read twice: as fast as ever, and another history.
        _insert(
            package / "cache" / "kv_cache.py",
            "        table.num_found = len(table.pages)\n",
            after="        self.adopt(table, len(token_ids) - 1)\n",
        )
        _insert(
            package / "step.py",
            f"        if __import__('os').path.exists({str(self._wrong)!r}):\n"
            "            if getattr(self.table, 'num_found', 0) > 2:\n"
            "                full[2] = full[1]\n",
            after="        full = pages[: (self.start + len(self.token_ids)) // PAGE_SIZE]\n",
        )

    def serve(self, model: Path) -> None:
        """Has a model of a repository run the copy.

        It becomes a model of the server's own Python backend: an installed backend comes first where the server looks
        for ours, and a model's own file may say otherwise.
        """
        config = model / "config.pbtxt"
        config.write_text(config.read_text().replace('backend: "folio"', 'backend: "python"'))
        first = f"import sys\n\nsys.path.insert(0, {str(self._folder)!r})\n"
        (model / "1" / "model.py").write_text(first + (self._folder / "model.py").read_text())

    def make_slow(self) -> None:
        """Every step of the engine takes a pause first."""
        self._slow.touch()

    def make_wrong(self) -> None:
        """Whoever finds more than two pages in the cache reads one of them twice, and another not at all."""
        self._wrong.touch()

    def repair(self) -> None:
        """No fault any more."""
        self._slow.unlink(missing_ok=True)
        self._wrong.unlink(missing_ok=True)


def _insert(path: Path, lines: str, *, before: str = "", after: str = "") -> None:
    text, anchor = path.read_text(), before or after
    assert text.count(anchor) == 1, f"{path.name} has changed: choose another line"
    path.write_text(text.replace(anchor, f"{lines}{anchor}" if before else f"{anchor}{lines}"))

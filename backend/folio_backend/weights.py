"""Where a model's weights come from: a Hugging Face folder of safetensors, or a GGUF file.

A GGUF file is dequantised once into a folder of safetensors that is cached by the file's content, because
loading it takes many times as long. Knows file formats and the cache folder; does not know the model's code,
and never loads pickled weights.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from folio_backend.errors import ConfigurationError

PACKAGE_SCHEME = "package:"
DIGEST_FILE = ".folio-digest.json"
# Part of a cached folder's name: raise it whenever the conversion writes something else.
CONVERSION = "v1"


def cache_folder(environment: Mapping[str, str]) -> Path:
    """`FOLIO_CACHE_DIR`, else `folio` in the user's cache folder. It need not exist."""
    if named := environment.get("FOLIO_CACHE_DIR"):
        return Path(named)
    base = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "folio"


def resolve_model(model: str, cache_dir: Path | None, progress: Callable[[str], None]) -> Path:
    """The folder of safetensors, configuration and tokenizer behind a `model` setting.

    Args:
        model: a Hugging Face folder, a `.gguf` file, or `package:NAME` or `package:NAME/FILE.gguf` for a GGUF
            file that an installed Python package carries.
        cache_dir: where converted models are kept; None for `cache_folder`.
        progress: is told, in a sentence, what takes long.

    Raises:
        ConfigurationError: `model` names nothing that can be served.
    """
    path = _package_file(model) if model.startswith(PACKAGE_SCHEME) else Path(model).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return _converted(path, cache_dir or cache_folder(os.environ), progress)
    if path.is_dir():
        return _checked_folder(path)
    raise ConfigurationError(
        f"model is {model!r}, and there is no such folder or file: allowed are a Hugging Face folder, "
        f"a .gguf file, {PACKAGE_SCHEME}NAME and {PACKAGE_SCHEME}NAME/FILE.gguf."
    )


def weights_digest(folder: Path) -> bytes:
    """SHA-256 over a model's configuration and weights: 32 bytes, the same for the same content anywhere.

    It is kept in the folder, where that can be written, and holds as long as no file's size or time changes.

    Args:
        folder: what `resolve_model` returned.
    """
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    states = {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in files}
    kept = folder / DIGEST_FILE
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # absent or spoilt: computed again
        known = json.loads(kept.read_text())
        if known["files"] == states:
            return bytes.fromhex(known["sha256"])
    digest = hashlib.sha256()
    for file in files:
        for field in (file.name.encode(), _file_digest(file)):
            digest.update(len(field).to_bytes(8, "little") + field)
    if os.access(folder, os.W_OK):  # in a folder of somebody else's it is computed at every load
        _write_whole(kept, json.dumps({"files": states, "sha256": digest.hexdigest()}))
    return digest.digest()


def _checked_folder(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"model folder {folder} has no config.json: it is no Hugging Face model's folder.")
    if any(folder.glob("*.safetensors")):
        return folder
    pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
    if pickled:
        raise ConfigurationError(
            f"model folder {folder} has its weights in {pickled[0]}, a pickle, which can run code when it is "
            "loaded: convert them to safetensors."
        )
    raise ConfigurationError(f"model folder {folder} has no *.safetensors file.")


def _package_file(model: str) -> Path:
    """The GGUF file in an installed package, which is found but not imported: its imports may be absent."""
    name, _, file = model.removeprefix(PACKAGE_SCHEME).partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(f"model is {model!r}, and no Python package {name!r} is installed here.")
    folder = Path(spec.submodule_search_locations[0])
    carried = sorted(path.name for path in folder.glob("*.gguf"))
    if file in carried or (not file and len(carried) == 1):
        return folder / (file or carried[0])
    held = ", ".join(carried) or "no .gguf file"
    raise ConfigurationError(f"model is {model!r}, and the package carries {held}.")


def _converted(gguf: Path, cache_dir: Path, progress: Callable[[str], None]) -> Path:
    """The cached conversion of `gguf`, made now if it is not there. A second process waits for the first."""
    # Imported here, as in `_convert`.
    from safetensors import SafetensorError  # noqa: PLC0415

    models = cache_dir / "models"
    target = models / f"{gguf.stem}-{_file_digest(gguf).hex()[:16]}-{CONVERSION}"
    try:
        models.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(f"{target.name}.lock")):
            if not target.is_dir():
                progress(f"Converting {gguf.name} to safetensors, once; this takes about half a minute")
                _convert_whole(gguf, target)
                progress(f"Converted to {target}")
    except (OSError, SafetensorError) as error:
        raise ConfigurationError(
            f"the converted model cannot be kept in {models} ({error}): make room there, or name another folder "
            "with FOLIO_CACHE_DIR."
        ) from error
    return target


def _convert_whole(gguf: Path, target: Path) -> None:
    """Converts beside the target, which is there whole or not at all."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="converting-") as unfinished:
        _convert(gguf, Path(unfinished) / "model")
        (Path(unfinished) / "model").rename(target)


def _convert(gguf: Path, target: Path) -> None:
    """Writes model and tokenizer to `target`. Every value of a GGUF block is exact in fp32."""
    # Imported here: they take seconds, which the launcher and a converted model need not pay.
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**source)
        dequantised = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(**source, quantization_config=dequantised, dtype=torch.float32)
    except Exception as error:  # a damaged file makes transformers' reader raise anything
        cause = f"{type(error).__name__}: {error}"
        raise ConfigurationError(f"model file {gguf} cannot be read by transformers: {cause}") from error
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _file_digest(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()


def _write_whole(path: Path, text: str) -> None:
    """Writes a file that a reader sees whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False) as file:
        file.write(text)
    Path(file.name).replace(path)


def main(arguments: list[str]) -> None:
    """`python -m folio_backend.weights MODEL`: makes a model ready to be loaded and prints its folder."""
    if len(arguments) != 1:
        sys.exit("usage: python -m folio_backend.weights MODEL")
    try:
        folder = resolve_model(arguments[0], None, lambda sentence: print(sentence, flush=True))
    except ConfigurationError as error:
        sys.exit(str(error))
    weights_digest(folder)
    print(f"{arguments[0]} is ready in {folder}")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Where weights come from, what is refused, and that a conversion is done once, whole and rightly."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from folio_backend.errors import ConfigurationError
from folio_backend.weights import cache_folder, resolve_model, weights_digest
from tests.backend.tiny_gguf import write_tiny_gguf

if TYPE_CHECKING:
    import numpy.typing as npt


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Hugging Face folder, as far as its files go."""
    return write_folder(tmp_path / "model", config=b"{}", weights=np.zeros(4, np.float32))


def write_folder(path: Path, *, config: bytes, weights: npt.NDArray[np.float32]) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_bytes(config)
    save_file({"weights": weights}, path / "model.safetensors")
    return path


@pytest.fixture
def gguf_file(tmp_path: Path) -> Path:
    """A tiny model as GGUF."""
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    return path


def resolve(model: str | Path, cache: Path) -> tuple[Path, list[str]]:
    """The folder found, and what was told meanwhile."""
    told: list[str] = []
    return resolve_model(str(model), cache, told.append), told


def test_folder_of_safetensors_is_used_as_it_is(folder: Path, tmp_path: Path) -> None:
    assert resolve(folder, tmp_path / "cache") == (folder, [])
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("pickle", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickled_weights_are_refused_by_name(folder: Path, tmp_path: Path, pickle: str) -> None:
    (folder / "model.safetensors").rename(folder / pickle)
    with pytest.raises(ConfigurationError, match=rf"{pickle}.*safetensors"):
        resolve(folder, tmp_path)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_incomplete_folder_is_refused(folder: Path, tmp_path: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(ConfigurationError, match=Path(missing).suffix):
        resolve(folder, tmp_path)


@pytest.mark.parametrize(
    "model", ["no/such/folder", "absent.gguf", "package:no_such_package", "package:os.path", "package:folio_backend"]
)
def test_what_is_not_there_is_refused(tmp_path: Path, model: str) -> None:
    with pytest.raises(ConfigurationError, match=model):
        resolve(model, tmp_path)


def test_package_is_found_and_not_imported(gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site/carrier_of_weights"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('imported')")
    gguf_file.rename(package / "one.gguf")
    monkeypatch.syspath_prepend(str(package.parent))
    found, _ = resolve("package:carrier_of_weights", tmp_path / "cache")
    assert resolve("package:carrier_of_weights/one.gguf", tmp_path / "cache") == (found, [])
    (package / "two.gguf").touch()
    with pytest.raises(ConfigurationError, match=r"one\.gguf, two\.gguf"):
        resolve("package:carrier_of_weights", tmp_path / "cache")


def test_gguf_means_the_same_after_conversion(tmp_path: Path) -> None:
    expected = write_tiny_gguf(tmp_path / "tiny.gguf")
    folder, _ = resolve(tmp_path / "tiny.gguf", tmp_path / "cache")
    tensors = load_file(folder / "model.safetensors")
    for theirs, ours in (
        ("output.weight", "lm_head.weight"),
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("blk.0.attn_v.weight", "model.layers.0.self_attn.v_proj.weight"),
        ("blk.0.ffn_down.weight", "model.layers.0.mlp.down_proj.weight"),
    ):
        np.testing.assert_array_equal(tensors[ours], expected[theirs])
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    assert model.config.num_key_value_heads == 1
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert str(tokenizer.decode(tokenizer("hehe!")["input_ids"])).endswith("hehe!")


def test_gguf_is_converted_once_for_its_content(gguf_file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first, told = resolve(gguf_file, cache)
    assert told
    assert resolve(gguf_file, cache) == (first, [])
    write_tiny_gguf(gguf_file, seed=1)
    second, told = resolve(gguf_file, cache)
    assert told
    assert second != first
    assert weights_digest(second) != weights_digest(first)


def test_a_full_disk_is_said_in_a_sentence_and_leaves_nothing_half_done(gguf_file: Path, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(ConfigurationError, match=r"cannot be kept in .*cache/models .*FOLIO_CACHE_DIR"):
            resolve(gguf_file, tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.suffix for path in (tmp_path / "cache" / "models").iterdir()] == [".lock"]
    found, _ = resolve(gguf_file, tmp_path / "cache")
    assert (found / "model.safetensors").is_file()


def test_a_cache_folder_that_cannot_be_made_is_said_in_a_sentence(gguf_file: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ConfigurationError, match="Not a directory"):
        resolve(gguf_file, tmp_path / "cache")


def test_two_processes_convert_once(gguf_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "folio_backend.weights", str(gguf_file)]
    environment = {**os.environ, "FOLIO_CACHE_DIR": str(tmp_path / "cache")}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert outputs[0][-1] == outputs[1][-1]
    assert sum("once" in line for output in outputs for line in output) == 1


@pytest.mark.parametrize("fault", ["cut short", "unknown architecture"])
def test_unreadable_gguf_leaves_nothing_behind(tmp_path: Path, gguf_file: Path, fault: str) -> None:
    if fault == "cut short":
        gguf_file.write_bytes(gguf_file.read_bytes()[:1000])
    else:
        write_tiny_gguf(gguf_file, architecture="nonesuch")
    with pytest.raises(ConfigurationError, match=r"tiny\.gguf"):
        resolve(gguf_file, tmp_path / "cache")
    assert [path for path in (tmp_path / "cache/models").iterdir() if path.is_dir()] == []


CONTENTS = st.tuples(st.binary(max_size=8), st.lists(st.integers(0, 9), min_size=1, max_size=4).map(tuple))


@given(first=CONTENTS, second=CONTENTS)
def test_digest_stands_for_the_content_alone(
    tmp_path_factory: pytest.TempPathFactory,
    first: tuple[bytes, tuple[int, ...]],
    second: tuple[bytes, tuple[int, ...]],
) -> None:
    root = tmp_path_factory.mktemp("models")
    digests = [
        weights_digest(write_folder(root / name, config=config, weights=np.array(weights, np.float32)))
        for name, (config, weights) in (("a", first), ("b", second))
    ]
    assert (digests[0] == digests[1]) == (first == second)
    assert [len(digest) for digest in digests] == [32, 32]


def test_kept_digest_is_used_until_a_file_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = weights_digest(folder)
    with monkeypatch.context() as patch:
        patch.setattr("hashlib.sha256", lambda: pytest.fail("computed again"))
        assert weights_digest(folder) == before
    write_folder(folder, config=b"{}", weights=np.ones(4, np.float32))
    # As if it were some time later: file systems keep times in ticks of milliseconds.
    os.utime(folder / "model.safetensors", (2e9, 2e9))
    assert weights_digest(folder) != before


def test_spoilt_kept_digest_is_computed_again(folder: Path) -> None:
    before = weights_digest(folder)
    (folder / ".folio-digest.json").write_text("[]")
    assert weights_digest(folder) == before


def test_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder({"FOLIO_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert cache_folder({"XDG_CACHE_HOME": "/b"}) == Path("/b/folio")
    assert cache_folder({}) == tmp_path / ".cache/folio"

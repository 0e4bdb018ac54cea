"""The tiny models, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.generation.tiny_models import save_tiny_lora, save_tiny_pipeline


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("diffusers", reason="needs realgen[generate]")
    return save_tiny_pipeline(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_lora(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("peft", reason="needs realgen[generate]")
    return save_tiny_lora(tiny_pipeline, tmp_path_factory.mktemp("models") / "lora")

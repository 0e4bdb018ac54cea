"""A vision-language model as a detector, against transformers used by hand, with a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import realbench
from realbench.detection.families.vlm import frame, unframe
from realbench.errors import RealBenchError, UsageError
from tests.arena.tiny_vlm import Kind, save_tiny_vlm
from tests.detection.families.published_cards import changed_card, logits, pictures

WORDS = ("real", "Real", "fake", "Fake")
SIZES = ((120, 90), (60, 200), (33, 57))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_vlm(tmp_path_factory.mktemp("vlm"), words=WORDS)


def by_hand(folder: Path, question: str, images: list[np.ndarray]) -> np.ndarray:
    """P(real) as RealGen defines it: a softmax over mean logits at the answer's first place."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor: Any = AutoProcessor.from_pretrained(folder)
    network: Any = AutoModelForImageTextToText.from_pretrained(folder).eval()
    vocabulary = processor.tokenizer.get_vocab()
    scores = []
    for image in images:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        inputs = processor(text=[text], images=[Image.fromarray(image)], return_tensors="pt")
        with torch.no_grad():
            last = network(**inputs).logits[0, -1]
        real = (last[vocabulary["real"]] + last[vocabulary["Real"]]) / 2
        fake = (last[vocabulary["fake"]] + last[vocabulary["Fake"]]) / 2
        scores.append(torch.stack([real, fake]).softmax(dim=0)[0].item())
    return np.array(scores)


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "llava"])
def test_forensic_chat_gives_the_papers_number(tmp_path: Path, kind: Kind) -> None:
    folder = save_tiny_vlm(tmp_path / "model", kind, words=WORDS)
    detector = realbench.load_detector("forensic-chat", weights=folder)
    question = detector.card.question
    assert question is not None
    images = pictures(*SIZES)
    expected = by_hand(folder, question, images)
    assert np.ptp(expected) > 0.001
    found = 1 / (1 + np.exp(-logits(detector, images).astype(np.float64)))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_pictures_of_any_shape_are_scored(model: Path) -> None:
    detector = realbench.load_detector("forensic-chat", weights=model)
    images = pictures((1, 1), (2, 900), (30, 29))
    assert np.isfinite(logits(detector, images)).all()


@given(st.integers(28, 300), st.integers(28, 300))
def test_a_framed_picture_comes_back(height: int, width: int) -> None:
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    framed = frame(image, 300)
    assert framed.shape == (301, 300, 3)
    assert np.array_equal(unframe(framed), image)


def test_a_large_picture_is_scaled_down_in_its_shape() -> None:
    image = np.zeros((3000, 1500, 3), np.uint8)
    assert unframe(frame(image, 1344)).shape == (1344, 672, 3)


def test_the_pipeline_runs_it(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for n, image in enumerate(pictures(*SIZES)):
        Image.fromarray(image).save(folder / f"{n}.png")
    run = realbench.score(
        folder,
        detectors=["forensic-chat"],
        weights={"forensic-chat": {"weights": model}},
        device="cpu",
        cache=False,
    )
    assert run.n_scored == len(SIZES)
    assert run["forensic-chat"].between(0, 1).all()
    weights = run.manifest["detectors"][0]["weights_sha256"]
    assert len(weights) == 64


def test_question_and_answers_decide_the_fingerprint(tmp_path: Path, model: Path) -> None:
    from realbench.detection.cards import read_card

    def fingerprint(*changes: tuple[str, str]) -> str:
        card = read_card(changed_card(tmp_path, "forensic-chat", *changes))
        return card.with_weights({"weights": model}).fingerprint

    prints = {
        fingerprint(),
        fingerprint(("Look at this", "Examine this")),
        fingerprint(('["real", "Real"]', '["real"]')),
    }
    assert len(prints) == 3


def test_an_answer_of_several_tokens_is_refused(tmp_path: Path, model: Path) -> None:
    card = changed_card(tmp_path, "forensic-chat", ('"Real"', '"Unquestionably real"'))
    with pytest.raises(UsageError, match="'Unquestionably real' is not one token"):
        realbench.load_detector(card, weights=model)


def test_a_card_without_a_question_and_a_model_without_pictures_are_refused(
    tmp_path: Path, model: Path
) -> None:
    card = changed_card(tmp_path, "forensic-chat", ("question =", "#"))
    with pytest.raises(UsageError, match="has a question"):
        realbench.load_detector(card, weights=model)
    with pytest.raises(RealBenchError, match="no model folder"):
        realbench.load_detector("forensic-chat", weights=model / "config.json")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(RealBenchError, match="llama model"):
        realbench.load_detector("forensic-chat", weights=tmp_path / "text")

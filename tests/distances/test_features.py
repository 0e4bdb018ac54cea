"""The networks of ``features/``: which are on this machine, and what they compute."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from realbench.content import content_path
from realbench.detection import perturbations
from realbench.detection.cards import read_toml_card
from realbench.distances.features import (
    FEATURES_FILE,
    FeatureCard,
    find_features,
    load_features,
)
from realbench.errors import RealBenchError, UsageError
from realbench.images import read_image
from realbench.scoring.cache import ScoreCache
from realbench.scoring.engine import Networks, Protocol, score_files
from tests.conftest import FolderMaker
from tests.quality.tiny_clip import ARCHITECTURE, make_clip, register


def card_of(name: str) -> FeatureCard:
    return read_toml_card(content_path("features") / name / FEATURES_FILE, FeatureCard, "features")


def test_what_is_on_disk_is_used_and_the_rest_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REALBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    names = [card.name for card in find_features({})]
    assert "dinov2-small" in names
    assert "inception-fid" not in names
    given = {"inception-fid": {"weights": tmp_path}}
    name = "realbench.distances.features.find_spec"
    monkeypatch.setattr(name, lambda package: package)
    assert "inception-fid" in [card.name for card in find_features(given)]
    monkeypatch.setattr(name, lambda package: None)
    with pytest.raises(UsageError, match="Inception v3 of FID needs torch-fidelity"):
        find_features(given)
    with pytest.raises(UsageError, match="has weights, no 'head'"):
        find_features({"dinov2-small": {"head": tmp_path}})


def test_the_embedded_weights_are_those_of_their_source() -> None:
    pytest.importorskip("onnx")
    from realbench.detection.training import pretrained

    network = load_features(card_of("dinov2-small"), "cpu")
    import timm

    whole = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=224)
    pretrained.load_pretrained(whole, "vit_small_patch14_dinov2")
    ours = network.network.state_dict()  # type: ignore[attr-defined]
    for name, value in whole.state_dict().items():
        worst = (ours[name] - value).abs().max() / value.abs().max()
        assert worst < 0.02, name  # half a step of the 31 that the largest weight of a row has


def test_features_are_the_class_tokens_of_the_last_and_the_eighth_block() -> None:
    network = load_features(card_of("dinov2-small"), "cpu")
    images = np.random.default_rng(0).integers(0, 256, (2, 50, 80, 3), np.uint8)
    prepared = [network.prepare(image) for image in images]
    found = network.features(prepared)
    assert found.shape == (2, 768)
    whole = network.network  # type: ignore[attr-defined]
    with torch.inference_mode():
        tokens = whole._pos_embed(whole.patch_embed(torch.stack(prepared)))
        for number, block in enumerate(whole.blocks):
            tokens = block(tokens)
            if number == 7:
                eighth = whole.norm(tokens)[:, 0]
        last = whole.norm(tokens)[:, 0]
    # Products are in bfloat16 where the processor has it.
    for part, expected in ((found[:, :384], last), (found[:, 384:], eighth)):
        cosine = torch.cosine_similarity(torch.from_numpy(part), expected)
        assert cosine.min() > 0.999


def test_clip_features_are_open_clips(tmp_path: Path) -> None:
    register(tmp_path)
    model = make_clip()
    weights = tmp_path / "open_clip_model.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, weights)
    given = card_of("clip-vit-large-336")
    spec = {"input": {**given.input.model_dump(), "size": 224}}
    card = given.changed(**spec, model={"architecture": ARCHITECTURE})
    network = load_features(card.with_weights({"weights": weights}), "cpu")
    image = np.random.default_rng(0).integers(0, 256, (260, 300, 3), np.uint8)
    prepare = open_clip.image_transform(
        224, is_train=False, mean=given.input.mean, std=given.input.std
    )
    with torch.inference_mode():
        expected = model.encode_image(prepare(Image.fromarray(image))[None])
    found = network.features([network.prepare(image)])
    assert found == pytest.approx(expected.numpy(), abs=1e-4)


@pytest.mark.slow
def test_inception_features_are_torch_fidelitys(tmp_path: Path) -> None:
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    weights = tmp_path / "weights.pth"
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        torch.save({}, weights)
        theirs = module.FeatureExtractorInceptionV3("inception", ["2048"], str(weights))
    torch.save(theirs.state_dict(), weights)
    card = card_of("inception-fid").with_weights({"weights": weights})
    network = load_features(card, "cpu")
    images = [np.random.default_rng(n).integers(0, 256, (80 + n, 64, 3), np.uint8) for n in (0, 1)]
    found = network.features([network.prepare(image) for image in images])
    expected = [theirs(torch.from_numpy(one).permute(2, 0, 1)[None])[0] for one in images]
    assert found == pytest.approx(torch.cat(expected).numpy(), abs=1e-4)
    torch.save({"fc.weight": torch.zeros(1008, 2048)}, weights)
    with pytest.raises(RealBenchError, match="does not fit"):
        load_features(card, "cpu")
    weights.write_bytes(pickle.dumps(print))
    with pytest.raises(RealBenchError, match="is refused"):
        load_features(card, "cpu")


def test_files_get_the_features_of_what_the_protocol_shows(make_folder: FolderMaker) -> None:
    folder = make_folder("a", 3)
    (folder / "broken.png").write_bytes(b"none")
    paths = sorted(folder.iterdir())
    card = card_of("dinov2-small")
    options = {"cache": ScoreCache(None), "protocol": Protocol(matched=True)}
    scores = score_files(paths, Networks([], encoders=[card]), **options)
    network = load_features(card, "cpu")
    images = [perturbations.matched(read_image(path)) for path in paths[:3]]
    expected = network.features([network.prepare(image) for image in images])
    found = scores.features("dinov2-small")
    assert [bool(one.reason) for one in scores.outcomes] == [False, False, False, True]
    # Other batches round otherwise, in bfloat16 where the processor has it.
    assert np.linalg.norm(found[:3] - expected) < 0.01 * np.linalg.norm(expected)
    assert np.linalg.norm(found[0] - expected[1]) > 0.05 * np.linalg.norm(expected[1])
    assert np.isnan(found[3]).all()


def test_vectors_are_kept_and_damage_is_noticed(tmp_path: Path) -> None:
    place = tmp_path / "scores.sqlite"
    with ScoreCache(place) as cache:
        cache.put_vectors("network", {"a": b"12345678"})
    with ScoreCache(place) as cache:
        assert cache.vector("a", "network") == b"12345678"
        assert cache.vector("a", "another") is None
    data = place.read_bytes()
    assert data.count(b"12345678") == 1
    place.write_bytes(data.replace(b"12345678", b"12345679"))
    with ScoreCache(place) as cache, pytest.warns(UserWarning, match="was damaged"):
        assert cache.vector("a", "network") is None

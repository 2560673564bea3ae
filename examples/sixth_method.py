"""A method of your own: a small network, trained on rendered faces.
canthus synth --count 256 --out data/synth && python examples/sixth_method.py data/synth 200
"""

import sys
from pathlib import Path

import torch
from torch import nn

from canthus import methods
from canthus.face.faces import Alignment
from canthus.training.aligner import Aligner, AlignerConfig, Stage
from canthus.training.train import Recipe, train


class Tiny(Aligner):
    def __init__(self, config: AlignerConfig):
        super().__init__(config)
        layers = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.ReLU()) for a, b in ((3, 16), (16, 32), (32, 64))]
        self.network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * (config.size // 8) ** 2, 68 * 3))

    def forward(self, crops, start=None):  # crops (B,3,S,S), 0..1
        offsets = self.network(crops).float().unflatten(1, (68, 3))
        return Alignment(xyz=(offsets + torch.tensor([0.5, 0.5, 0.0])) * self.config.size)  # crop pixels

    def loss(self, alignment, truth):
        return {"distance": (alignment.xyz - truth.xyz).norm(dim=-1).mean(1) / self.config.size}

    def stages(self):
        return (Stage("all", {"distance": 1.0}),)


if __name__ == "__main__":
    methods.__path__.append(str(Path(__file__).parent))  # methods are found by their file's name
    faces, steps = sys.argv[1:]
    recipe = Recipe(method=Path(__file__).stem, config={"size": 64}, faces=(faces,), steps=int(steps), batch=32)
    for step in train(recipe, "tiny"):
        print(f"step {step['step']}: distance {step['distance']:.3f}")

"""LMI-Dist as a library: python generate.py MODEL_FOLDER"""

import sys
from pathlib import Path

from lmi.core import Sampling
from lmi.dist import DistConfig, Engine

prompts = ["The with statement", "A list is", "Raised when"]
sampling = Sampling(max_new_tokens=24, temperature=0.7, top_p=0.9, seed=1)

with Engine.load(DistConfig(Path(sys.argv[1]), max_batch=8)) as engine:
    for prompt, answer in zip(prompts, engine.generate(prompts, sampling), strict=True):
        print(prompt + answer.text)

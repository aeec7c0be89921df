"""What later images are compared with (`dier monitor`): embeddings of some training images and a few numbers on their pixels.

No image is kept. Of copies of one original one is taken at random: copies say the same thing several times, and a test that takes
them for independent images finds a difference where there is none.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from components.common.artifact import Artifact
from components.embedding.store import read
from components.probing.candidate import images_of
from data.format import Dataset
from data.quality.statistics import block_statistics

FILE = "reference.safetensors"
MEASURES = ("mean", "std", "max", "saturated_share")
"""Of `data.quality.statistics`, beside the embeddings, (n,) float32 each."""
BLOCK = 1024


def write(folder: Path, dataset: Dataset, embedded: Artifact, timesteps: Sequence[int], size: int, seed: int) -> None:
    """Write FILE: `embedding` (n, D) float32, at several timesteps side by side, and MEASURES, of n <= `size` training images."""
    train, copies = dataset.split("train"), dataset.info.copies
    random, originals = np.random.default_rng(seed), len(train) // copies
    chosen = np.sort(random.choice(originals, min(size, originals), replace=False))
    rows = chosen * copies + random.integers(copies, size=len(chosen))
    vectors = np.concatenate([read(embedded, "train", t, rows) for t in timesteps], axis=1)
    blocks = [block_statistics(images) for _, images in images_of(train, rows, BLOCK)]
    measured = {name: np.concatenate([block[name] for block in blocks]).astype(np.float32) for name in MEASURES}
    save_file({"embedding": vectors, **measured}, folder / FILE)

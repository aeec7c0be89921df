"""How far points move from one timestep's map to the next: as t-SNE gives them, turned, and begun from the map before.

OMP_NUM_THREADS=1 python -m benchmarks.maps artifacts/embeddings --points 800
"""

import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from sklearn.manifold import TSNE

from components.common import artifact
from components.embedding import store
from components.exploring.maps import levelled, turned
from components.reporting.projection import Floats, flat_map, one_thread, sample


def begun_from(v: Floats, before: Floats) -> Floats:
    """t-SNE as `flat_map`, but begun from another map, made as small as scikit-learn makes PCA's."""
    start = (before / before[:, 0].std() * 1e-4).astype(np.float64)
    places: Any = TSNE(perplexity=30, init=start, random_state=0, n_jobs=1).fit_transform(v.astype(np.float64))
    return np.asarray(places, np.float32)


def moved(one: Floats, other: Floats) -> float:
    """Root mean square distance between a point's places on two levelled maps."""
    return float(np.sqrt(((one - other) ** 2).sum(axis=1).mean()))


@click.command()
@click.argument("embeddings", type=click.Path(path_type=Path))
@click.option("--split", default="val")
@click.option("--points", default=800)
def main(embeddings: Path, split: str, points: int) -> None:
    """Print a row a step from t to t, and the means."""
    embedded = artifact.read(embeddings, "embeddings")
    facts = embedded.json("embeddings.json")
    rows = sample(facts["counts"][split], points)
    alone: list[Floats] = []
    chained: list[Floats] = []
    steps = []
    with one_thread():
        for t in sorted(facts["timesteps"]):
            v, began = store.read(embedded, split, t, rows), time.process_time()
            alone.append(levelled(flat_map(v)))
            seconds = time.process_time() - began
            chained.append(levelled(begun_from(v, chained[-1])) if chained else alone[0])
            if len(alone) > 1:
                pairs = [(alone[-1], alone[-2]), (turned(*alone[:-3:-1]), alone[-2]), (turned(*chained[:-3:-1]), chained[-2])]
                steps.append([moved(*pair) for pair in pairs])
                print(
                    f"to t = {t}: {'  '.join(f'{step:.3f}' for step in steps[-1])}  ({seconds:.1f} s of processor time)", flush=True
                )
    print(f"mean: {'  '.join(f'{mean:.3f}' for mean in np.mean(steps, axis=0))}  (alone, turned, begun from the last and turned)")


if __name__ == "__main__":
    main()

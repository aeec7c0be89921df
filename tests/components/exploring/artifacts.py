"""A dataset, embeddings of it and a probe, as the steps write them: real digits, invented embeddings and figures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.common import artifact
from components.embedding import store
from data.format import MULTI_LABEL, DatasetInfo, write_info
from tests.data.files import digits

COUNTS = {"train": 30, "val": 90}
CHOSEN = 300
WIDTH = 8


def make(root: Path, task: str = "multi-class", *, labelled: bool = True, timesteps: Sequence[int] = (0, CHOSEN, 999)) -> Path:
    """Write the three beside each other; gives the folder of the embeddings."""
    images, numbers = digits()
    labels, names = np.asarray(numbers, np.int64), [str(digit) for digit in range(10)]
    if task == MULTI_LABEL:
        labels, names = np.stack([labels % 2 == 0, labels > 4], axis=1).astype(np.uint8), ["even", "above four"]
    if not labelled:
        labels, names = np.zeros(len(images), np.int64), ["unlabelled"]
    start = 0
    made_from = {"dataset": "", "model": artifact.digest("m")}
    random = np.random.default_rng(0)
    centres = random.normal(size=(10, WIDTH)).astype(np.float32)
    with artifact.create(root / "dataset", "dataset", {}) as folder:
        for split, count in COUNTS.items():
            here = slice(start, start := start + count)
            (folder / split).mkdir()
            np.save(folder / split / "images.npy", images[here, :, :, None])
            np.save(folder / split / "labels.npy", labels[here])
        write_info(folder, DatasetInfo("glyphs <b>", "tests", "CC0", task, names, [8, 8, 1], COUNTS, []))
    made_from["dataset"] = artifact.read(root / "dataset", "dataset").fingerprint
    with artifact.create(root / "embeddings", "embeddings", made_from) as folder:
        start = 0
        for split, count in COUNTS.items():
            here = slice(start, start := start + count)
            for t in timesteps:
                v = centres[numbers[here]] + (0.2 + t / 1000) * random.normal(size=(count, WIDTH)).astype(np.float32)
                store.write(store.file_of(folder, split, t), labels[here], [v], "float32")
        facts = {"timesteps": list(timesteps), "splits": list(COUNTS), "dtype": "float32", "embed_dim": WIDTH, "counts": COUNTS}
        artifact.write_json(folder / "embeddings.json", facts)
    _probe(root / "probe", made_from | {"embeddings": artifact.read(root / "embeddings", "embeddings").fingerprint}, labelled)
    return root / "embeddings"


def _probe(out: Path, made_from: dict[str, str], labelled: bool) -> None:
    accuracy = {"value": 0.8, "low": 0.7, "high": 0.9}
    with artifact.create(out, "probe", made_from) as folder:
        found = {"chosen_by": "accuracy", "test": {"accuracy": accuracy}} if labelled else {"chosen_by": "label_free", "test": {}}
        artifact.write_json(folder / "metrics.json", {"t": CHOSEN} | found)
        rows = (
            "0,9.2,dier,val,accuracy,0.5,0.4,0.6,1\n300,0.1,dier,val,accuracy,0.8,0.7,0.9,1\n999,-9,dier,val,accuracy,0.6,0.5,0.7,1\n"
            "300,0.1,dier,test,accuracy,0.8,0.7,0.9,1\n0,9.2,denoiser_given_v_block0,val,accuracy,0.3,,,1\n"
            "0,9.2,denoiser_given_v_block1,val,accuracy,0.4,,,1\n,,pixels,val,accuracy,0.55,0.5,0.6,1\n"
            if labelled
            else "0,9.2,dier,val,score,0.2,,,\n300,0.1,dier,val,score,0.9,,,\n300,0.1,dier,test,kept,0.9,0.8,1,\n"
        )
        (folder / "curve.csv").write_text("t,log_snr,representation,split,metric,value,low,high,c\n" + rows)

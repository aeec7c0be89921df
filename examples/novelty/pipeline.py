"""Somebody else's pipeline: which new images look like none of before? Three of dier's steps, a gate, and a model that exists.

model (imported by URI) ───────────────┐
prepare ──▶ validate ──▶ data-gate ┄┄┄┄├──▶ embed ──▶ novelty (a component of one's own) ──▶ unusual.csv, figures
   └──────────────────────────────────┘

Nothing of dier is imported: the component files are all that another repository needs. The image is the one in the files;
`dier components --cluster FILE --out DIR` writes them for a registry of your own.

    python examples/novelty/pipeline.py novelty.yaml     # compile, then upload it or create a run from it
"""

import os
import sys
from pathlib import Path
from typing import Any

from kfp import compiler, components, dsl, kubernetes

COMPONENTS = Path(os.environ.get("DIER_COMPONENTS", Path(__file__).parents[2] / "pipeline" / "compiled" / "components"))
IMAGE = os.environ.get("NOVELTY_IMAGE", "dier:0.1.0")
"""Of the component below. Any image with Python, kfp, numpy, pyarrow and scikit-learn; dier's has them."""


def load(name: str) -> Any:
    """One of dier's components."""
    return components.load_component_from_file(str(COMPONENTS / f"{name}.yaml"))


prepare, validate, data_gate, embed = map(load, ("prepare", "validate", "data-gate", "embed"))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def novelty(
    embeddings: dsl.Input[dsl.Dataset], show: int, unusual: dsl.Output[dsl.Dataset], figures: dsl.Output[dsl.Metrics]
) -> None:
    """Distance of each test image to the nearest train image, in units of the train images' own; the largest `show` of them."""
    import csv
    from pathlib import Path

    import numpy as np
    import pyarrow.parquet as pq
    from sklearn.neighbors import NearestNeighbors

    def vectors(split: str) -> np.ndarray:
        files = sorted((Path(embeddings.path) / split).rglob("*.parquet"))  # of the one timestep; several where a set has shards
        return np.concatenate([np.stack(pq.read_table(file)["embedding"].to_pylist()) for file in files])

    known, new = vectors("train"), vectors("test")
    index = NearestNeighbors(n_neighbors=2).fit(known)
    usual = np.median(index.kneighbors(known)[0][:, 1])  # the first neighbour of a known image is itself
    distance = index.kneighbors(new, n_neighbors=1)[0][:, 0] / usual
    order = np.argsort(-distance)[:show]
    with open(unusual.path, "w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(["test_index", "distance"])
        writer.writerows((int(i), round(float(distance[i]), 4)) for i in order)
    figures.log_metric("images", len(new))
    figures.log_metric("farthest", round(float(distance.max()), 4))
    figures.log_metric("beyond_twice_the_usual", int((distance > 2).sum()))


def pod(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """What each component's page asks for: a user, and a folder to write."""
    kubernetes.set_security_context(task, run_as_user=10001, run_as_group=10001, run_as_non_root=True)
    return kubernetes.empty_dir_mount(task, "work", "/state")


# its name is no component's: kfp loads a compiled pipeline that is named like one of its components as that component
@dsl.pipeline(name="unusual-images", description="Images that look like none of before")
def pipeline(
    model_uri: str,
    data: dict[str, Any] = {"source": "digits", "name": "digits"},  # noqa: B006
    embedding: dict[str, Any] = {"timesteps": [300], "splits": ["train", "test"]},  # noqa: B006
    show: int = 20,
) -> None:
    """`model_uri`: a model artifact that dier's train made, such as s3://bucket/dier/model."""
    model = dsl.importer(artifact_uri=model_uri, artifact_class=dsl.Model, reimport=False)
    dataset = pod(prepare(data_settings=data)).outputs["dataset"]
    verdict = pod(validate(dataset_in=dataset)).outputs["verdict"]
    passed = pod(data_gate(verdict_in=verdict))
    embedded = pod(embed(embed_settings=embedding, dataset_in=dataset, model_in=model.output).after(passed))
    pod(novelty(embeddings=embedded.outputs["embeddings"], show=show))


if __name__ == "__main__":
    compiler.Compiler().compile(pipeline, sys.argv[1])

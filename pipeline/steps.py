"""The seven steps as one table: the command, DVC's stages and the compiled pipeline are all held to it by tests."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One step: `dier NAME --params FILE --INPUT DIR ... --out DIR`, run by `components.NAME.run`."""

    name: str
    help: str
    output: str
    """What its artifact is called by later steps, and its kind."""
    sections: tuple[str, ...]
    """The settings sections that it is handed, and so all that it can depend on."""
    inputs: tuple[str, ...] = ()
    """Its input artifacts, in the order of the command line; `work` is a scratch folder rather than an artifact."""


STEPS = (
    Step("prepare", "bring images from their source into the on-disk format", "dataset", ("data",)),
    Step("validate", "check the images: schema, copies, leaks, near-duplicates, drift", "verdict", ("validate",), ("dataset",)),
    Step(
        "train", "train encoder and denoiser together, without labels", "model", ("model", "train"), ("dataset", "verdict", "work")
    ),
    Step("embed", "export v_t for every split and timestep", "embeddings", ("embed",), ("dataset", "model")),
    Step("probe", "linear probes over t, with baselines", "probe", ("probe",), ("dataset", "model", "embeddings")),
    Step(
        "report",
        "one self-contained HTML page",
        "report",
        ("data", "validate", "model", "train", "embed", "probe"),
        ("dataset", "verdict", "model", "embeddings", "probe"),
    ),
    Step(
        "register",
        "gate the model and register it in MLflow",
        "registration",
        ("register",),
        ("verdict", "model", "probe", "report"),
    ),
)

OUTPUT = {step.name: step.output for step in STEPS}
STATE = "/state"
"""A container's own writable folder, the image's working folder: running checkpoints, MLflow's SQLite file, scratch."""

INPUT_HELP = {
    "dataset": "dataset artifact, made by prepare",
    "verdict": "verdict artifact, made by validate",
    "model": "model artifact, made by train",
    "embeddings": "embeddings artifact, made by embed",
    "probe": "probe artifact, made by probe",
    "report": "report artifact, made by report",
    "work": "folder of running checkpoints, kept between runs",
}

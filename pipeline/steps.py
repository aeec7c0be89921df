"""The table of steps: everything that names them is made from it, but for DVC's `dvc.yaml`, which a test holds to it.

The commands (pipeline/run_step.py), the Kubeflow pipeline (pipeline/kubeflow/pipeline.py), the step names in the cluster file.
A new step is a row here, a module `components/NAME.py` with `run`, a stage in dvc.yaml, and its section of settings if it has one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Step:
    """One step: `dier NAME --params FILE --INPUT DIR ... --out DIR`, run by `components.NAME.run`."""

    name: str
    help: str
    sections: tuple[str, ...]
    """The settings sections that it is handed, and so all that it can depend on."""
    output: str
    """What its artifact is called by later steps, and its kind in the artifact's manifest."""
    inputs: tuple[str, ...] = ()
    """Outputs of earlier steps in the order of the command line; `work` is a scratch folder rather than an artifact."""
    kfp_type: str = "Artifact"
    """The class in kfp.dsl of its artifact. A name, since kfp takes a second to import."""
    shown: Mapping[str, str] = field(default_factory=dict)
    """What Kubeflow's pages show beside the artifact: name and class in kfp.dsl; pipeline/task/ui_outputs.py writes each. The page
    of a run draws a box each, under these names and in their alphabetical order."""
    box: str = ""
    """What Kubeflow calls the artifact where the step has its name already: a task and its artifact are two boxes on one page."""
    gate: str | None = None
    """The task on Kubeflow that ends the run where the artifact says no, after the step itself ended well (`dier gate`)."""
    cached: bool = True
    """Whether Kubeflow may take the result of an earlier run: not where the step changes something outside, such as a registry."""

    @property
    def kubeflow_output(self) -> str:
        """The artifact's name among the task's outputs on Kubeflow."""
        return self.box or self.output


STEPS = (
    Step(
        name="prepare",
        help="bring images from their source into the on-disk format",
        sections=("data",),
        output="dataset",
        kfp_type="Dataset",
    ),
    Step(
        name="validate",
        help="check the images: schema, copies, leaks, near-duplicates, drift",
        sections=("validate",),
        inputs=("dataset",),
        output="verdict",
        shown={"data_docs": "HTML"},
        gate="data-gate",
    ),
    Step(
        name="train",
        help="train encoder and denoiser together, without labels",
        sections=("model", "train"),
        inputs=("dataset", "verdict", "work"),
        output="model",
        kfp_type="Model",
        shown={"training_metrics": "Metrics"},
    ),
    Step(
        name="embed",
        help="export v_t for every split and timestep",
        sections=("embed",),
        inputs=("dataset", "model"),
        output="embeddings",
        kfp_type="Dataset",
    ),
    Step(
        name="probe",
        help="linear probes over t, with baselines",
        sections=("probe",),
        inputs=("dataset", "model", "embeddings"),
        output="probe",
        box="probe_results",
        shown={
            "conclusions": "Markdown",
            "confusion": "ClassificationMetrics",
            "probe_metrics": "Metrics",
            "timestep_curve": "HTML",
        },
    ),
    Step(
        name="report",
        help="one self-contained HTML page",
        sections=("data", "validate", "model", "train", "embed", "probe"),
        inputs=("dataset", "verdict", "model", "embeddings", "probe"),
        output="report",
        box="report_files",
        shown={"report_page": "HTML"},
    ),
    Step(
        name="register",
        help="gate the model and register it in MLflow",
        sections=("register",),
        inputs=("verdict", "model", "probe", "report"),
        output="registration",
        shown={"gate_verdict": "Markdown"},
        gate="model-gate",
        cached=False,
    ),
)

BY_NAME = {step.name: step for step in STEPS}
OUTPUT = {step.name: step.output for step in STEPS}
INPUT_HELP = {step.output: f"{step.output} artifact, made by {step.name}" for step in STEPS}
INPUT_HELP["work"] = "folder of running checkpoints, kept between runs"

SPLIT, LOOP, JOIN = "embed-split", "embed-by-timestep", "embed-join"
"""The tasks on Kubeflow around an embed that is fanned out, a task a timestep; split and join are commands too."""
MONITORING, MONITOR, DRIFT_GATE = "dier-monitor", "monitor", "drift-gate"
"""The pipeline on Kubeflow that watches new images, and its two tasks."""
OUTCOME = "outcome"
"""The task at the end of a run on Kubeflow, whatever happened."""

DATASETS = "/datasets"
"""Where tasks on Kubeflow see the claim that keeps datasets, a folder each under its fingerprint."""
STATE = "/state"
"""A container's own writable folder, the image's working folder: running checkpoints, MLflow's SQLite file, scratch."""

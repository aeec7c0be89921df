"""`dier compile`: the pipeline as the YAML that Kubeflow takes. The same settings give the same bytes."""

import contextlib
import io
import tempfile
from pathlib import Path

from components.common import settings
from components.common.progress import say
from model.atomic import write_whole
from pipeline.kubeflow import cluster as cluster_settings

HEAD = "# Made by: dier compile. Change params.yaml, the cluster file or pipeline/kubeflow/pipeline.py, and compile again.\n"


def compile_to(out: Path, *, cluster: Path, params: Path, allow_tag: bool) -> None:
    """Compile with the defaults of `params` for `cluster` and write `out`, whole or not at all. Raises SettingsError."""
    wanted, defaults = cluster_settings.load(cluster), settings.load(params)
    wanted.check_image(allow_tag)
    wanted.check_tracking()
    write_whole(out, compiled(defaults, wanted))
    say(f"compiled {out} (image {wanted.image})")


def compiled(defaults: settings.Settings, wanted: cluster_settings.Cluster) -> str:
    """The compiled pipeline as YAML text: the pipeline, and a second document with what Kubernetes is asked for."""
    from kfp import compiler

    from pipeline.kubeflow.pipeline import build

    with tempfile.TemporaryDirectory(prefix="dier-compile-") as folder, contextlib.redirect_stdout(io.StringIO()):
        file = Path(folder) / "dier.yaml"
        compiler.Compiler().compile(build(defaults, wanted), str(file))
        lines = file.read_text("utf-8").splitlines(keepends=True)
    # the compiler's comment lists the defaults in an order that changes from run to run
    return HEAD + "".join(line for line in lines if not line.startswith("#"))

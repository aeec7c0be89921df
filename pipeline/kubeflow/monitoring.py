"""The pipeline that watches new images on Kubeflow, and `dier compile-monitor`: `dier monitor`, then a gate, run by a schedule.

monitor ─▶ drift-gate

A failed task keeps nothing but its log on Kubeflow. So monitor ends well whatever it finds, with its page on the run's, and the
gate ends the run where the images drift. Neither takes a cached result: the same words mean other images, or another champion.
"""

from pathlib import Path

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from components.common.progress import say
from components.monitoring.decision import check_alpha
from model.atomic import write_whole
from pipeline.kubeflow import cluster as cluster_settings
from pipeline.kubeflow.cluster import Cluster
from pipeline.kubeflow.pipeline import yaml_of
from pipeline.kubeflow.placement import place, place_monitor
from pipeline.steps import DRIFT_GATE, MONITOR, MONITORING

HEAD = "# Made by: dier compile-monitor.\n"


def compile_to(out: Path, *, cluster: Path, model: str, images: str, alpha: float, allow_tag: bool) -> None:
    """Compile for `cluster` and write `out`, whole or not at all; the rest are defaults of parameters. Raises SettingsError."""
    check_alpha(alpha)
    wanted = cluster_settings.load(cluster)
    wanted.check_image(allow_tag)
    wanted.check_tracking()
    write_whole(out, HEAD + yaml_of(build(wanted, model, images, alpha)))
    say(f"compiled {out} (image {wanted.image})")


def build(cluster: Cluster, model: str, images: str, alpha: float) -> BaseComponent:
    """The pipeline. Pictures that cannot be used are left out by default: one that is half written fails no day's run."""
    watch, gate = _monitor_component(cluster), _gate_component(cluster)

    def monitoring(
        model: str = model, images: str = images, alpha: float = alpha, fit: bool = False, skip_bad: bool = True
    ) -> None:
        watched = watch(model=model, images=images, alpha=alpha, fit=fit, skip_bad=skip_bad)
        watched.set_caching_options(False)
        place_monitor(watched, cluster)
        held = gate(monitoring=watched.outputs["monitoring"])
        held.set_caching_options(False)
        place(held, DRIFT_GATE, cluster)

    monitoring.__doc__ = (
        "Are new images like those that a registered model was trained on?\n\n"
        "Args:\n    model: a registered model, NAME@ALIAS.\n    images: a folder or npz as the pod sees it.\n"
        "    alpha: the share of false alarms, of all that decides together.\n"
        "    fit: cut and resample images of another size, as data.image_size does.\n"
        "    skip_bad: leave out pictures that cannot be used, and say how many.\n"
    )
    config = dsl.PipelineConfig(ttl_seconds_after_finished=cluster.run.keep, active_deadline_seconds=cluster.run.deadline)
    return dsl.pipeline(name=MONITORING, pipeline_config=config)(monitoring)


def _monitor_component(cluster: Cluster) -> BaseComponent:
    def monitor(
        model: str,
        images: str,
        alpha: float,
        fit: bool,
        skip_bad: bool,
        monitoring: dsl.Output[dsl.Artifact],
        page: dsl.Output[dsl.HTML],
    ) -> dsl.ContainerSpec:
        """Compare new images with those that a registered model was trained on."""
        out = ["--report-only", "--alpha", alpha, "--out", monitoring.path, "--page", page.path]
        switches = ["--switch", "fit", fit, "--switch", "skip-bad", skip_bad]  # Kubeflow writes true or false
        return dsl.ContainerSpec(image=cluster.image, command=["dier", MONITOR], args=[*out, *switches, model, images])

    return dsl.container_component(monitor)


def _gate_component(cluster: Cluster) -> BaseComponent:
    def specification(monitoring: dsl.Input[dsl.Artifact]) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image=cluster.image, command=["dier", "gate"], args=["--monitoring", monitoring.path])

    specification.__name__, specification.__doc__ = DRIFT_GATE, "End the run where new images drift."
    return dsl.container_component(specification)

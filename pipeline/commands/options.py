"""Options that several commands around the steps have."""

from pathlib import Path

import click

from pipeline.run_step import PATH, options

CLUSTER = click.option("--cluster", type=PATH, default=Path("pipeline/cluster.yaml"), metavar="FILE", help="cluster settings")
DEFAULTS = click.option("--params", type=PATH, default=Path("params.yaml"), metavar="FILE", help="settings, such as params.yaml")
PIPELINE = click.option(
    "--pipeline", type=PATH, default=Path("pipeline/compiled/dier.yaml"), metavar="FILE", help="compiled pipeline"
)
PARAM = click.option(
    "--param", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="a setting other than compiled (repeatable)"
)
ALLOW_TAG = click.option("--allow-tag", is_flag=True, help="accept an image without @sha256: digest: caches may then lie")
NO_CACHE = click.option("--no-cache", is_flag=True, help="run every step, whatever is cached")
PIPELINE_NAME = click.option(
    "--pipeline-name", "--name", "pipeline_name", default="dier", metavar="P", help="name of the pipeline on the cluster"
)
EXPERIMENT = click.option("--experiment", default="dier", metavar="E", help="experiment, made where there is none")
WAIT = click.option("--wait", is_flag=True, help="wait for the end; exit 0 only when the run succeeded")

connection = options(
    click.option("--host", envvar="KF_PIPELINES_ENDPOINT", show_envvar=True, metavar="URL", help="pipelines' API"),
    click.option("--token-file", type=PATH, metavar="FILE", help="file with a bearer token"),
    click.option("--cookie-file", type=PATH, metavar="FILE", help="file with a login's cookie, NAME=VALUE, such as dex gives"),
    click.option("--ca", type=PATH, metavar="FILE", help="certificate of a private authority, PEM"),
    click.option("--namespace", metavar="N", help="namespace, where the cluster has several users"),
)
"""Where the cluster's API is, and who asks: pipeline.kubeflow.runs.connection.Connection."""

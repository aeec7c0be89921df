"""Commands that use a registered model: new images embedded and predicted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pipeline.run_step import PATH, options
from pipeline.task import threads

MODEL = click.option("--model", required=True, metavar="MODEL", help="NAME[@ALIAS], models:/..., or a folder with an MLmodel")
FIT = click.option("--fit", is_flag=True, help="cut and resample images of another size, as data.image_size does")
ARRAY = click.option(
    "--array", "arrays", multiple=True, metavar="NAME", help="array of an npz, not images or SPLIT_images (repeatable)"
)
OUT_FILE = click.option("--out", type=PATH, required=True, metavar="FILE", help="where the Parquet file goes")
named_images = options(
    click.argument("images", type=PATH, nargs=-1, required=True, metavar="IMAGES..."),
    MODEL,
    OUT_FILE,
    FIT,
    ARRAY,
    click.option("--skip-bad", is_flag=True, help="leave out pictures that cannot be used, and say which"),
)


def add_to(dier: click.Group) -> None:
    """Add the commands, in the order in which --help lists them."""
    for command in (embed_images, predict):
        dier.add_command(command)


@click.command("embed-images")
@named_images
def embed_images(images: Sequence[Path], **options: Any) -> None:
    """Write the embeddings of pictures, folders of them and npz files, by a registered model, as Parquet."""
    threads.set_threads()
    from components.inference.embed_images import embed_images

    embed_images(images=images, **options)


@click.command()
@named_images
def predict(images: Sequence[Path], **options: Any) -> None:
    """Write the class and the probabilities of pictures, folders of them and npz files, by a registered model, as Parquet."""
    threads.set_threads()
    from components.inference.embed_images import predict

    predict(images=images, **options)

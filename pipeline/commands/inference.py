"""Commands that use a model: images embedded and predicted, embeddings searched and looked at, the model exported and served."""

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
SKIP_BAD = click.option("--skip-bad", is_flag=True, help="leave out pictures that cannot be used, and say which")
OUT_FILE = click.option("--out", type=PATH, required=True, metavar="FILE", help="the file to write")
named_images = options(
    click.argument("images", type=PATH, nargs=-1, required=True, metavar="IMAGES..."),
    MODEL,
    OUT_FILE,
    FIT,
    ARRAY,
    SKIP_BAD,
)


def add_to(dier: click.Group) -> None:
    """Add the commands, in the order in which --help lists them."""
    for command in (embed_images, predict, search, explore, export_onnx, serve, monitor):
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


@click.command()
@click.argument("embeddings", type=PATH)
@click.option("--row", "rows", type=int, multiple=True, metavar="N", help="what is near this row (repeatable)")
@click.option("--image", "images", type=PATH, multiple=True, metavar="FILE", help="what is near this picture (repeatable)")
@click.option("-k", type=click.IntRange(1), default=10, metavar="N", help="neighbours")
@click.option("--index", type=PATH, metavar="FILE", help="faiss index, made where there is none; without it exact")
@click.option("--model", metavar="MODEL", help="model that made the embeddings, for --image; without it the one they name")
@click.option("--split", metavar="S", help="split of an embeddings artifact, where it has several")
@click.option("--t", type=int, metavar="T", help="timestep of an embeddings artifact, where it has several")
@FIT
def search(embeddings: Path, rows: Sequence[int], images: Sequence[Path], **options: Any) -> None:
    """Print the nearest neighbours by cosine in embeddings (a file of embed-images, or a folder of embed), as a table with tabs."""
    threads.set_threads()
    from components.inference.search import search

    if not rows and not images:
        raise click.UsageError("give --row N or --image FILE")
    hits = search(embeddings, rows=rows, images=images, **options)
    columns = list(dict.fromkeys(name for hit in hits for name in hit))
    print("\t".join(columns))
    for hit in hits:
        shown = hit | {"cosine": f"{hit['cosine']:.4f}"}
        print("\t".join("" if shown[name] is None else _cell(str(shown[name])) for name in columns))


def _cell(text: str) -> str:
    """Without the tabs, newlines and the like that a file's name may have: they would break the table."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@click.command()
@click.option("--embeddings", type=PATH, default=Path("artifacts/embeddings"), metavar="DIR", help="embeddings artifact")
@click.option("--dataset", type=PATH, metavar="DIR", help="the images; without it dataset beside the embeddings")
@click.option("--probe", type=PATH, metavar="DIR", help="the curve over t; without it probe beside the embeddings, if it is there")
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="which images; without it val if it was embedded")
@click.option("--points", type=click.IntRange(4, 10_000), default=2000, metavar="N", help="images on the map, drawn of more")
@click.option("--neighbours", "-k", type=click.IntRange(1, 100), default=12, metavar="N", help="neighbours shown of an image")
@click.option("--host", default="127.0.0.1", metavar="H", help="address to listen at; another than this machine's own has no login")
@click.option("--port", type=click.IntRange(0, 65535), default=8081, metavar="P", help="port; 0 takes a free one")
@click.option("--cache", type=PATH, default=Path(".work/explore"), metavar="DIR", help="where maps are kept for the next time")
def explore(**options: Any) -> None:
    """Serve a page to look around in embeddings: their map at each t, images, neighbours, the probe's curve."""
    threads.set_threads()
    from components.exploring.server import explore

    explore(**options)


@click.command("export-onnx")
@MODEL
@OUT_FILE
def export_onnx(**options: Any) -> None:
    """Write a registered model as ONNX, pixels in and embeddings and probabilities out, checked against PyTorch."""
    threads.set_threads()
    from components.inference.onnx_export import export_onnx

    export_onnx(**options)


@click.command()
@click.argument("model", metavar="MODEL")
@click.option("--host", default="127.0.0.1", metavar="H", help="address to listen at; another than this machine's own has no login")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, metavar="P", help="port; 0 takes a free one")
@click.option("--max-mb", type=click.FloatRange(0, min_open=True), default=16.0, metavar="N", help="largest request, MiB")
@click.option("--max-images", type=click.IntRange(1), default=1024, metavar="N", help="most images in a request")
@FIT
def serve(model: str, **options: Any) -> None:
    """Serve a registered model (NAME[@ALIAS], models:/..., a folder) over HTTP until it is stopped."""
    threads.set_threads()
    from components.inference.server import serve

    serve(model, **options)


@click.command()
@click.argument("model", metavar="MODEL")
@click.argument("images", type=PATH, nargs=-1, required=True, metavar="IMAGES...")
@click.option("--out", type=PATH, required=True, metavar="DIR", help="where the page and the numbers go")
@click.option(
    "--alpha",
    type=click.FloatRange(0.002, 1),
    default=0.01,
    metavar="P",
    help="share of false alarms, of all that decides together",
)
@click.option("--sample", type=click.IntRange(2, 10_000), default=2000, metavar="N", help="images in the test at most")
@FIT
@ARRAY
@SKIP_BAD
@click.option("--report-only", is_flag=True, help="end with 0 where they drift; dier gate --monitoring DIR says so afterwards")
@click.option("--page", "page_file", type=PATH, metavar="FILE", help="write the page here as well")
@click.option(
    "--switch",
    "switches",
    type=(click.Choice(["fit", "skip-bad"]), bool),
    multiple=True,
    metavar="FLAG BOOL",
    help="--switch fit true is --fit: for a pipeline, whose command line is fixed (repeatable)",
)
def monitor(model: str, images: Sequence[Path], switches: Sequence[tuple[str, bool]], **options: Any) -> None:
    """Compare pictures, folders of them and npz files with what a registered model was trained on; exit code 4 where they drift."""
    threads.set_threads()
    from components.monitoring.monitor import monitor

    options |= {name.replace("-", "_"): value for name, value in switches}
    monitor(model, images, **options)

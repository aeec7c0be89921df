from pathlib import Path

from pipeline import package
from pipeline.cluster import STEP_NAMES
from pipeline.graph import draw, edges, order

ROOT = Path(__file__).parents[2]
COMPILED = ROOT / "pipeline" / "compiled" / "dier.yaml"


def test_the_picture_shows_every_task_after_what_it_needs() -> None:
    pipeline = package.read(COMPILED)
    assert order(pipeline) == [*STEP_NAMES, "outcome"]
    places = {name: place for place, name in enumerate(order(pipeline))}
    drawn = edges(pipeline)
    assert len(drawn) == 17
    assert all(places[edge.source] < places[edge.target] for edge in drawn)


def test_the_same_pipeline_gives_the_same_picture(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        draw(package.read(COMPILED), tmp_path / name)
    one, two = (tmp_path / name for name in ("one.png", "two.png"))
    assert one.read_bytes() == two.read_bytes()
    assert one.read_bytes().startswith(b"\x89PNG")

"""Small but whole artifacts as the earlier steps write them, for the tests of the registry: real networks, invented figures."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from components.common.artifact import create, digest, read, write_json
from components.common.settings import RegisterSettings, Settings
from data.format import MULTI_LABEL
from model.config import ModelConfig
from model.dier import DiER
from model.weights import save_model

CLASSES = ["a", "b", "c"]
TESTED = 200
CONFIG = ModelConfig(depth=1, dim=16, heads=2, image_height=8, image_width=8, channels=1, patch_size=4, embed_dim=12)


@dataclass(frozen=True)
class Inputs:
    """What `dier register` is given."""

    verdict: Path
    model: Path
    probe: Path
    report: Path

    def paths(self) -> dict[str, Path]:
        """As keyword arguments."""
        return {"verdict": self.verdict, "model": self.model, "probe": self.probe, "report": self.report}


def settings(**changes: object) -> RegisterSettings:
    return RegisterSettings.model_validate({"name": "glyphs", "experiment": "tests", "min_accuracy": 0.5, **changes})


def correct(accuracy: float, seed: int = 0) -> np.ndarray:
    """Which of the test images are right: exactly this share, (TESTED,) bool."""
    right = np.arange(TESTED) < round(accuracy * TESTED)
    return np.random.default_rng(seed).permutation(right)


def make(
    folder: Path,
    *,
    right: np.ndarray | None = None,
    dataset: str = "d1",
    config: ModelConfig = CONFIG,
    multi_label: bool = False,
    labelled: bool = True,
    passed: bool = True,
    training: str = "t1",
    summary: dict[str, object] | None = None,
    given: dict[str, dict[str, object]] | None = None,
) -> Inputs:
    """Four artifacts that belong together; `right` (TESTED,) says which test images the probe got right.

    Not `labelled`: the share of its neighbours that each test image keeps.
    `summary` goes into summary.json; `given` are the settings of the earlier steps where they are not the defaults.
    """
    right = correct(0.9) if right is None else right
    sections = Settings.model_validate(given or {})
    recorded = {name: sections.section(name).record() for name in ("data", "validate", "model", "train", "embed", "probe")}
    data = digest(dataset)
    with create(folder / "verdict", "verdict", {"dataset": data}) as out:
        write_json(out / "verdict.json", {"passed": passed, "warnings": 2, "expectations": []})
    verdict = read(folder / "verdict", "verdict").fingerprint
    with create(folder / "model", "model", {"dataset": data, "verdict": verdict}) as out:
        network = DiER(config)
        save_model(out, network, network.state_dict())
        (out / "curve.csv").write_text("step,loss,loss_t000_199,lr\n100,1.5,,0.001\n200,0.5,0.25,0.001\n")
        write_json(out / "summary.json", {"steps": 200, "training_key": digest(training), **(summary or {})})
        write_json(out / "settings.json", {name: recorded[name] for name in ("model", "train")})
    model = read(folder / "model", "model").fingerprint
    made = {"dataset": data, "model": model, "embeddings": digest("e")}
    if labelled:
        _probe(folder / "probe", made, right, config, multi_label)
    else:
        _unlabelled_probe(folder / "probe", made, np.asarray(right, np.float64))
    probe = read(folder / "probe", "probe").fingerprint
    made_from = {"dataset": data, "verdict": verdict, "model": model, "embeddings": digest("e"), "probe": probe}
    with create(folder / "report", "report", made_from) as out:
        (out / "report.html").write_text("<html>report</html>")
        write_json(out / "settings.json", recorded)
    return Inputs(folder / "verdict", folder / "model", folder / "probe", folder / "report")


def _probe(folder: Path, made_from: dict[str, str], right: np.ndarray, config: ModelConfig, multi_label: bool) -> None:
    random, k = np.random.default_rng(0), len(CLASSES)
    with create(folder, "probe", made_from) as out:
        figures = {"accuracy": {"value": float(right.mean()), "low": 0.0, "high": 1.0}}
        task = MULTI_LABEL if multi_label else "multi-class"
        metrics = {
            "dataset": "glyph set",
            "task": task,
            "representation": "dier",
            "t": 300,
            "test": figures,
            "class_names": CLASSES,
        }
        write_json(out / "metrics.json", metrics)
        (out / "curve.csv").write_text(
            "t,log_snr,representation,split,metric,value,low,high,c\n"
            f"0,9.2,dier,val,accuracy,0.7,0.6,0.8,0.1\n300,1.0,dier,val,accuracy,0.8,0.7,0.9,0.1\n"
            f"300,1.0,dier,test,accuracy,{right.mean()},0.7,0.9,0.1\n,,pixels,test,accuracy,0.6,0.5,0.7,0.1\n"
        )
        weight = random.normal(size=(k, config.embed_dim)).astype(np.float32)
        save_file({"weight": weight, "bias": np.array([0.1, 0.0, -0.1], np.float32)}, out / "classifier.safetensors")
        save_file({"embedding": random.normal(size=(20, config.embed_dim)).astype(np.float32)}, out / "reference.safetensors")
        index = np.arange(len(right))
        table = {"index": index, "label": index % k, "dier": np.where(right, index % k, (index + 1) % k), "correct": right}
        pq.write_table(pa.table(table), out / "predictions.parquet")


def _unlabelled_probe(folder: Path, made_from: dict[str, str], kept: np.ndarray) -> None:
    with create(folder, "probe", made_from) as out:
        share = float(kept.mean())
        test = {"kept": {"value": share, "low": share - 0.02, "high": share + 0.02}}
        test |= {"effective_rank": {"value": 9.0}, "spread": {"value": 0.3}}
        metrics = {
            "dataset": "scans",
            "task": "multi-class",
            "representation": "dier",
            "t": 300,
            "test": test,
            "chance": 0.01,
            "class_names": ["unlabelled"],
        }
        write_json(out / "metrics.json", metrics)
        (out / "curve.csv").write_text(
            "t,log_snr,representation,split,metric,value,low,high,c\n"
            f"0,9.2,dier,val,score,0.3,,,\n300,1.0,dier,val,score,0.8,,,\n300,1.0,dier,test,kept,{share},0.3,0.5,\n"
        )
        table = pa.table({"index": np.arange(len(kept)), "kept": kept}).replace_schema_metadata({"measure": "10 of 600"})
        pq.write_table(table, out / "neighbours.parquet")


def plain(config: ModelConfig) -> dict[str, object]:
    """The configuration as `config.json` holds it."""
    return asdict(config)

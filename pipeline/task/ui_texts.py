"""Texts for Kubeflow's pages, in Markdown: what the probe found, and what the gate decided with what to type next.

The page of a task shows the first 255 characters of each output as they are, so the finding comes first and unescaped.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from components.common.formatting import METRIC_NAMES, gain, measure
from components.probing.baselines import label
from data.format import labelled
from pipeline.run_summary import HOW, headline

Document = Mapping[str, Any]


def probe_text(metrics: Document) -> str:
    """Of metrics.json: which t, how good on test, beside which baselines, and what that says."""
    found = metrics["peak"]["sentence"]
    if not labelled(metrics["task"], metrics["class_names"]):
        return f"# {headline(metrics)}\n\n{_bullets([found, *metrics['conclusions']])}\n"
    metric = metrics["chosen_by"]
    rows = [_row(name, one, metric) for name, one in {"dier": metrics, **metrics["baselines"]}.items()]
    head = f"| representation | t | C | test {METRIC_NAMES[metric]} | DiER's gain, paired |\n| --- | --- | --- | --- | --- |\n"
    return "\n\n".join(
        [f"# {headline(metrics, metric)}", _bullets([found, *metrics["conclusions"]]), head + "\n".join(rows), f"{HOW}.\n"]
    )


def _row(name: str, found: Document, metric: str) -> str:
    t = "-" if found["t"] is None else found["t"]
    over = gain(found["difference"][metric], metric) if "difference" in found else ""
    return f"| {_escaped(label(name))} | {t} | {found['c']:g} | {measure(found['test'][metric], metric)} | {over} |"


def gate_text(registration: Document) -> str:
    """Of registration.json: the verdict with its reasons, where the version stands, and the commands that follow."""
    name, version, gate = (registration[key] for key in ("name", "version", "gate"))
    held = ", ".join(registration["aliases"]) or "no alias"
    commands = [f"dier models {name}", *_next(registration)]
    return (
        f"# Gate {gate['verdict']}: {name} version {version} ({held})\n\n{_bullets(gate['reasons'])}\n\n"
        f"What to type next:\n\n```\n{chr(10).join(commands)}\n```\n"
    )


def _next(registration: Document) -> list[str]:
    name, version, gate = (registration[key] for key in ("name", "version", "gate"))
    if "champion" in registration["aliases"]:
        return []
    return [f"dier promote {name} --version {version}{'' if gate['passed'] else ' --force'} --reason TEXT"]


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {_escaped(sentence)}" for sentence in sentences)


def _escaped(text: str) -> str:
    """With nothing in it that Markdown takes for its own: between the underscores of two `v_t` all would be slanted."""
    return re.sub(r"([\\`*_|])", r"\\\1", text)

"""The texts on Kubeflow's pages: what they say, and that Markdown reads them as meant."""

from typing import Any

import pytest
from markdown_it import MarkdownIt

from pipeline.task.ui_texts import gate_text, probe_text


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.02, "high": value + 0.02}


def metrics(metric: str = "accuracy", **more: Any) -> dict[str, Any]:
    test = {"accuracy": estimate(0.961), "auc": estimate(0.95)}
    pixels = {"t": None, "c": 0.1, "variant": "", "test": test, "difference": {name: estimate(0.01) for name in test}}
    return {
        "dataset": "my_own_set", "task": "multi-class", "class_names": ["a", "b"], "chosen_by": metric, "t": 200, "c": 10,
        "variant": "", "test": test, "baselines": {"pixels": pixels, "denoiser_given_v_block1": pixels | {"t": 50}},
        "peak": {"t": 200, "kind": "interior", "sentence": "A peak inside the range of t: set more in embed.timesteps."},
        "conclusions": ["On test DiER beats the denoiser's block 1, which is given v_t: of v_t *one* thing."],
    } | more  # fmt: skip


def parsed(text: str) -> list[Any]:
    return list(MarkdownIt("commonmark").enable("table").parse(text))


def words(text: str) -> str:
    """What a person reads."""
    return " ".join(child.content for token in parsed(text) for child in token.children or [] if child.type == "text")


def test_the_finding_comes_first_and_as_it_is() -> None:
    """The page of the task shows 255 characters of it, unrendered (frontend/src/components/ArtifactPreview.tsx of 2.17.0)."""
    text = probe_text(metrics())
    assert text.startswith("# my_own_set: DiER at t = 200 gives a linear-probe accuracy of 96.10 % [94.10, 98.10] on test\n")


def test_it_says_which_t_beside_which_baselines_and_what_follows() -> None:
    text = probe_text(metrics())
    tokens = parsed(text)
    assert [token.tag for token in tokens if token.type.endswith("_open")][:4] == ["h1", "ul", "li", "p"]
    assert sum(token.type == "tr_open" for token in tokens) == 4  # the head, DiER, two baselines
    read = words(text)
    for said in (
        "A peak inside",
        "raw pixels",
        "which is given v_t: of v_t *one* thing",
        "+1.00 points [-1.00, +3.00]",
        "test is read once",
    ):
        assert said in read, said
    assert not any(child.type in ("em_open", "strong_open") for token in tokens for child in token.children or [])


def test_a_set_judged_by_auc_is_told_by_auc() -> None:
    assert "a linear-probe AUC of 0.9500 [0.9300, 0.9700]" in probe_text(metrics("auc"))


def test_without_labels_it_says_what_can_be_known_and_no_accuracy() -> None:
    found = {"test": {"kept": estimate(0.4)}, "baselines": {}, "peak": {"sentence": "Nothing is told apart."}}
    given = metrics("label_free", class_names=["unlabelled"], conclusions=["It varies in 9 of 16 directions."]) | found
    text = probe_text({name: value for name, value in given.items() if name not in ("c", "val")})
    assert text == (
        "# my_own_set: no labels; at t = 200 a mild view of a test image keeps 40.00 % [38.00, 42.00] of its neighbours\n\n"
        "- Nothing is told apart.\n- It varies in 9 of 16 directions.\n"
    )
    assert "DiER at t" in probe_text(metrics("auc", class_names=["a"], task="multi-label, binary-class"))


@pytest.mark.parametrize(
    ("verdict", "aliases", "command"),
    [
        ("passed", ["candidate"], "dier promote dier --version 3 --reason TEXT"),
        ("uncompared", ["candidate"], "dier promote dier --version 3 --reason TEXT"),
        ("refused", [], "dier promote dier --version 3 --force --reason TEXT"),
        ("passed", ["champion"], None),
    ],
)
def test_the_gates_verdict_has_its_reasons_and_what_to_type_next(verdict: str, aliases: list[str], command: str | None) -> None:
    gate = {
        "passed": verdict != "refused",
        "verdict": verdict,
        "reasons": ["test accuracy 0.9610 reaches register.min_accuracy 0.8"],
    }
    text = gate_text({"name": "dier", "version": 3, "gate": gate, "aliases": aliases})
    assert text.startswith(f"# Gate {verdict}: dier version 3 ({', '.join(aliases) or 'no alias'})\n")
    assert "reaches register.min_accuracy 0.8" in words(text)
    typed = next(token.content.splitlines() for token in parsed(text) if token.type == "fence")
    assert typed == ["dier models dier", *([command] if command else [])]

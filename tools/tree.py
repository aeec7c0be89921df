"""The tree of the code, a line a file, by the files' own first sentences; `python -m tools.tree` writes it into the docs."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("pipeline", "components", "model", "data", "benchmarks", "tools")
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- tree: python -m tools.tree -->\n", "<!-- end of the tree -->\n"


def tree() -> str:
    """The folders and files of the code as a Markdown code block."""
    return "```\n" + "\n".join(line.rstrip() for folder in FOLDERS for line in _lines(ROOT / folder, 0)) + "\n```\n"


def with_tree(page: str) -> str:
    """The page with the tree between its two marks. Raises ValueError where it has none."""
    head, mark, rest = page.partition(BEGIN)
    if not mark or END not in rest:
        raise ValueError(f"{PAGE} lacks the marks {BEGIN.strip()} and {END.strip()}")
    return head + BEGIN + tree() + END + rest.partition(END)[2]


def _lines(folder: Path, depth: int) -> Iterator[str]:
    package = folder / "__init__.py"
    yield _line(folder.name + "/", _sentence(package) if package.is_file() else "", depth)
    for file in sorted(folder.glob("*.py")):
        if file != package:
            yield _line(file.name, _sentence(file), depth + 1)
    for child in sorted(path for path in folder.iterdir() if path.is_dir() and any(path.glob("*.py"))):
        yield from _lines(child, depth + 1)


def _line(name: str, says: str, depth: int) -> str:
    return f"{'  ' * depth}{name:<{30 - 2 * depth}}{says}"


def _sentence(file: Path) -> str:
    return (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").split("\n")[0]


if __name__ == "__main__":
    PAGE.write_text(with_tree(PAGE.read_text("utf-8")), "utf-8")

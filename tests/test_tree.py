"""The tree in docs/architecture.md is that of the files."""

from tools.tree import PAGE, with_tree


def test_the_tree_in_the_docs_is_the_tree() -> None:
    page = PAGE.read_text("utf-8")
    assert page == with_tree(page), "the files changed: python -m tools.tree"

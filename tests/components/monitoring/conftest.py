"""The registered models of the tests of inference."""

from tests.components.inference.conftest import folders, glyphs

__all__ = ["folders", "glyphs"]

"""The embeddings artifact: its store, and its parts made by several tasks."""

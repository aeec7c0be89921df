"""A registered model in use: new images embedded and predicted, the encoder exported, embeddings searched, requests answered."""

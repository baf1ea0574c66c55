"""Training: a run's config → clips → loop → checkpoints. `autoencoder.py` trains the codec that comes before it all."""

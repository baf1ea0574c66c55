"""Training: `loop` takes a run's batches step by step to checkpoints; `autoencoder` trains the codec that comes before.

run/    a run's folder and config, what it starts from, what stops it
data/   clips, and what is measured on the recordings
step/   objective, gradients, weights and their EMA, metrics
"""

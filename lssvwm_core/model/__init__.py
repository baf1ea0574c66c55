"""Networks: the autoencoder, the mixers, the layer and the world model."""

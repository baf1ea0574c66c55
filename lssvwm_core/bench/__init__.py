"""What things cost (the paper's figure 8), measured here and drawn."""

"""What a model learns from: clips, and what is measured on the recordings before the first step."""

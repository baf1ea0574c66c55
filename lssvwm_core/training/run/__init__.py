"""A run: its folder, its config, what it starts from, and what stops it."""

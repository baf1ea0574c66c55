"""The world model and everything that computes. torch lives here and only here."""

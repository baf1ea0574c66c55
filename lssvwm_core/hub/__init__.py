"""Sharing worlds and shards on the Hugging Face hub: folders with their cards, and the client that moves them."""

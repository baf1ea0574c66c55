"""Recordings and shards: everything the toolkit knows about files of frames, actions and poses.

Nothing here imports torch. The readers yield `Episode`s, `shards` stores their latents, and `memory_maze` also records
new episodes from the real environment.
"""

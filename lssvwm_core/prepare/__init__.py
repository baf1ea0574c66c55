"""Recordings into shards: plan, estimate, write, index.

The unit of work is a shard: a fixed list of recordings, encoded episode by episode, part by part. A shard is a function
of its recordings and the autoencoder alone, so an interrupted run continues with the shards that are missing, and
processes, a Ray cluster or the parts of a job array write what one uninterrupted run writes.
"""

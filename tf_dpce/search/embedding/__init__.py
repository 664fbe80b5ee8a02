"""Images and texts become shards of embeddings, on one machine or many.

patterns      files by folder and glob
records       images and captions of prepared shards
texts         captions of a file
facts         what is known of an image besides its pixels
input_shards  the units of bulk work
inputs        images and texts to embed, with their ids
store         the folder of shards of embeddings
shard_writer  how one of them is published
embed         inputs to shards of embeddings, resumable
ray_engine    the same on a cluster
fingerprint   a digest of a model
"""

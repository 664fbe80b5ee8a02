"""An index in a folder, which grows.

manifest        which files of it are in force
segment_files   files of items that were written together
segments        these items as they are searched
state           all items at a moment
factories       FAISS indices by their descriptions
merging         when segments are merged
segment_writer  how the files of a segment are written
writer          how the index changes
folder          what a search asks of it
metadata_table  further columns of items
build           opens an index by its place, or builds one over embeddings
check_recall    what an approximate index misses
"""

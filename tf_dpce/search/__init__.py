"""Search: items become vectors, vectors an index, and a query its ranked hits.

inputs      images and sentences: globs, text files, prepared shards
embedding   inputs -> shards of vectors, resumable            `embed`
index       shards -> FAISS indices with metadata             `build_index`
query       a sentence or an image -> hits                   `Searcher`, `open_searcher`
sheet       queries and hits -> one PNG                       `contact_sheet`
"""

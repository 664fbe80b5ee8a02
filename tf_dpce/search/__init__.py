"""Search: items become embeddings, embeddings an index, and a query its ranked hits.

Data flows down this list; a module imports only from those above it.

embedding      images and texts to shards of embeddings
interface      what a search asks of an index
milvus         an index in Milvus
index          an index in a folder, and the opening and building of both
queries        texts, images, items and filters, as they are asked
probabilities  how probable it is that a hit is what was asked
answer         hits
searcher       a query to its answer
find           the index that follows a folder
"""

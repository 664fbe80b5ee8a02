"""Search: items become embeddings, embeddings an index, and a query its ranked hits.

inputs           images and texts to embed, with their ids
patterns         files by folder and glob
records          images and captions of prepared shards
facts            what is known of an image besides its pixels
embed            inputs to shards of embeddings, resumable
embedding_store  the folder of these shards
interface        what a search asks of an index
filters          conditions on the columns of an index, read and checked
filter_forms     the same as expressions of Arrow and of Milvus
index            opens an index, or builds one over shards
index_folder     an index in a folder, which grows
index_manifest   which files of it are in force
index_state      its items at a moment
index_writer     how it changes
segments         items that were written together, as they are searched
segment_files    their files
segment_writer   how these are written
merging          when segments are merged
metadata_table   further columns of items
check_recall     what an approximate index misses
factories        FAISS indices by their descriptions
milvus           an index in Milvus
query            sums of texts, images and items
query_encoder    a query to an embedding
duplicates       items hidden behind others
answer           hits
folder_listing   the images of a folder, and those that cannot be embedded
folder_update    a folder's changes to its index
searcher         a query to its answer
fingerprint      a digest of a model
"""

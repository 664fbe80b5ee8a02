"""What is asked of an index.

query          sums of texts, images and items
query_encoder  a query to an embedding
filters        conditions on the columns of an index, read and checked
filter_forms   the same as expressions of Arrow and of Milvus
duplicates     items hidden behind others
"""

"""An index in Milvus, a database of embeddings for what one machine cannot hold.

connection  an address, and what goes wrong on the way there
rows        records as rows of Milvus
storage     which collections make up an index, and how they are filled
index       what a search asks
"""

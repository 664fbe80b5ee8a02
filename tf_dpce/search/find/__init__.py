"""A folder of images and the index that follows it.

listing  the images of a folder, and those that cannot be embedded
update   a folder's changes to its index
"""

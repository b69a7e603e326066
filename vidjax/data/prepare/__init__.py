"""Preparation of datasets: validation, and re-encoding into array_record files that are fast to read.

encode  one video: resized, cut, and encoded as H.264 or JPEG frames
write   all videos of a split, in shards, by worker processes or Apache Beam
read    random access to prepared data
check   validation and statistics of a dataset as it is
"""

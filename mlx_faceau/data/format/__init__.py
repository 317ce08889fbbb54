"""Training files (HDF5): reading, writing, checking, merging and splitting them.

Everything here raises DatasetError, which names the file, if one cannot be read or written.
"""

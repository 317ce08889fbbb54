"""Training files in HDF5: schema, reading, writing, merging, splitting and checks."""

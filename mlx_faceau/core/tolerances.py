"""Tolerances: how far two computations of one net may differ.

By output: landmarks and tx, ty in pixels of the crop, angles in radians, intensities in [0, 5].
"""

# Largest absolute difference of two float32 implementations, both in eval mode.
MAX_ERROR = {
    "landmarks": 1e-3,
    "global_params": 1e-3,
    "local_params": 1e-3,
    "au_intensities": 1e-4,
}
# Of a net whose own float32 error against float64 is larger: this many times that error.
OWN_ERRORS = 4.0

# One step of training, dropout replaced by identity: relative differences.
FIRST_LOSS = 1e-4
RUNNING_STATISTICS = 1e-5

# Mean absolute difference of float16 from float32 on faces. Bounds are set for landmarks and
# intensities; pose and shape are held to the same measure as the landmarks they make.
FLOAT16_MEAN_ERROR = {
    "landmarks": 0.1,
    "global_params": 0.1,
    "local_params": 0.1,
    "au_intensities": 0.02,
}

# Largest change that int8 may make to the mean absolute error against labels; pose and shape are
# shown without a bound.
INT8_CHANGE = {"landmarks": 0.05, "au_intensities": 0.01}

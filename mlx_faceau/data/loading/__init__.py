"""From training files to batches: shuffling, augmentation, validation split."""

"""What every other room rests on: NumPy and the standard library, no framework."""

"""How long does one training step take?  python benchmarks/train_step.py [--threads 1 2]"""

from cases import main

if __name__ == "__main__":
    main("train_step", "train_step", batches=[32], rounds=5)

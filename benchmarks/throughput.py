"""How many faces a second in batches?  python benchmarks/throughput.py [--batch 32]"""

from cases import main

if __name__ == "__main__":
    main("throughput", "inference", batches=[32], rounds=20)

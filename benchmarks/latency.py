"""How long does one face take?  python benchmarks/latency.py [--threads 1 2] [--rounds 20]"""

from cases import main

if __name__ == "__main__":
    main("latency", "inference", batches=[1], rounds=20)

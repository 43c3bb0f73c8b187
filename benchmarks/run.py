"""The benchmark's entry: `python benchmarks/run.py [--full]` with any Python 3.11+; `--help` says more.

Builds the benchmark's own environment from its lock on first use and goes on there, in `rounds.py`.
"""

import environment

if __name__ == "__main__":
    environment.run("rounds.py")

"""What the machine provides: clocks, files written atomically, hashes, memory, threads, seeds."""

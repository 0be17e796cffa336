"""What the machine gives: clocks, files written atomically, hashes, memory, threads, seeds."""

"""What each operation of a network computes, and how a CPU computes several of them together."""

"""What a comparison says: which row is best, which cannot be told from it, what it costs, what to try next."""

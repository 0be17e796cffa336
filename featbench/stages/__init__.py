"""The papers' notation, and the parts of a stage as torch modules: filter banks, encoders, N, pooling."""

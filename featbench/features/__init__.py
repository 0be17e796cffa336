"""Features as rows or local vectors: their extraction, dense descriptors, codes, spatial pyramids."""

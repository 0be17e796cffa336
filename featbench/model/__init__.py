"""A fitted pipeline outside its store: one row of a comparison, written to a folder and applied to new images."""

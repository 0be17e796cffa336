"""The store's results as entries, and entries as pages."""

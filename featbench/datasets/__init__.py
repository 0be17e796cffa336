"""Built-in data sets, one file each, reached through the registry alone."""

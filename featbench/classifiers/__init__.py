"""Built-in classifiers, one file each, reached through the registry alone."""

"""Built-in feature learners, one file each, reached through the registry alone."""

"""Built-in protocols, one file each, reached through the registry alone. They declare; they hold no logic."""

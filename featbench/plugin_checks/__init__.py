"""What the registry asks of a plugin before it takes what the plugin gives."""

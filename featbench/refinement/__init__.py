"""R+ and U+: back-propagation through the whole network."""

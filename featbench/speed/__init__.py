"""How fast features are extracted on this machine, beside bare convolutions and plain torch."""

"""How fast features are extracted on this machine, compared with bare convolutions and plain torch."""

"""How features are judged: protocols, regimes, draws, published tables, scores."""

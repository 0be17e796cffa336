"""A request becomes cells, and a cell becomes a score; nothing is stored or printed here."""

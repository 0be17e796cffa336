"""Results and artifacts under content hashes, and the steps of a cell that look there first."""

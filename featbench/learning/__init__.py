"""What feature learners are built from: their contract, patches, K-means, PSD's algorithm, networks of stages."""

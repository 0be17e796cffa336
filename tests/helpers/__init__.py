"""What tests of several rooms share, apart from fixtures."""

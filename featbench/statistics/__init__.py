"""A data frame in, numbers out: means over draws, tests of differences."""

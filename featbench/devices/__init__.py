"""Which device computes, with which implementation, how many images at once, and what its failures mean."""

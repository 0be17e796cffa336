"""A row of a comparison looked at closely: its classes, its confusions, and the images that it got wrong."""

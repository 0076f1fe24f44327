"""A prepared copy of a data set: all images resized once, in one file."""

"""Reading files: images, DICOM, lung masks and tables."""

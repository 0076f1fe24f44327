"""Reading images: PNG, JPEG, DICOM, lung masks, prepared copies, unreadable files."""

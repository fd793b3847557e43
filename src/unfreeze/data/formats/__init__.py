"""What single kinds of image files need: depth, DICOM, TIFF, PNG."""

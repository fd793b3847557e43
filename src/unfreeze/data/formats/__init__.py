"""Reading of particular image formats: bit depth and bands, DICOM, TIFF, PNG."""

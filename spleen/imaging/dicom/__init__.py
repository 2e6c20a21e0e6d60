"""DICOM series as volumes: which files, what their headers say, how they stack, and their voxels."""

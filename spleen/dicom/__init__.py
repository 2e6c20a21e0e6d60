"""DICOM results and DICOM networking: segmentations and reports of a prediction, and a node that makes them.

Reading a series is part of `spleen.imaging`, since an image may be a series wherever it may be a file.
"""

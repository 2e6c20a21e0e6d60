"""Damaged DICOM files by the hundred, and a process that reads each of them under limits of time and memory."""

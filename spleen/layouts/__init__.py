"""Dataset layouts (Decathlon, nnU-Net, paired folders, CSV table) and split files."""

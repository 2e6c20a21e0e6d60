"""Where the cases of a dataset lie: Decathlon, nnU-Net, paired folders, a table; and files that tell how to split."""

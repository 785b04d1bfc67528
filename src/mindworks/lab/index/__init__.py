"""What lies in the folders of runs: an index to list and filter them, and the comparison of two runs."""

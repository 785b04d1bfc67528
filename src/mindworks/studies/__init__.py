"""One file per paper: the claim, a config, run, check and plot. `mindworks list` finds them by listing this folder."""

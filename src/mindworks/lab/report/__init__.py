"""The static site of all papers, claims, records and figures: `mindworks report`."""

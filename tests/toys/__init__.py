"""Small studies that stand in for real ones in the tests of the lab and of the command line."""

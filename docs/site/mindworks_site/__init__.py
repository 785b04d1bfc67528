"""The documentation site: pages of the repository, a reference made from docstrings, and hooks for Sphinx."""

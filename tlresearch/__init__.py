"""Transfer techniques for researchers: exact methods, honest tables.

Importing this package imports neither a family nor an extra; see `tlresearch --help`.
"""

__version__ = "0.1.0"

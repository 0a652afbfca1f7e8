"""Train large, then compress: which Transformer to train, how long, and how hard to compress it."""

__version__ = "0.1.0"

"""Ids that every tokenizer of ours gives its special pieces."""

PAD, UNK, BOS, EOS, MASK = range(5)
FIRST_ORDINARY = 5
"""All ids from here on are text (byte pieces included); those below are never predicted nor drawn."""

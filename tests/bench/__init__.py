"""`make bench`: speed and size of the engine against transformers' own generate, in one run on one machine."""

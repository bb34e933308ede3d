"""A data set that three workers label together: a lexicon, a nearest neighbour, and a language model."""

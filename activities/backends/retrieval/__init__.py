"""What indexes are made of: vectors, words, entries; and the engines that search them."""

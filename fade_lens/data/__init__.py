"""What comes in: corpora, descriptions, and samples drawn from them."""

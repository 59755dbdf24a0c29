"""What a schedule costs and does, in figures, words and pictures."""

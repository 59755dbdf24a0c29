"""What a trained model goes by: gradients by its input, attention, and what it loses without a column."""

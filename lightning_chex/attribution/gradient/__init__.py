"""Methods that follow gradients or relevance back from the output."""

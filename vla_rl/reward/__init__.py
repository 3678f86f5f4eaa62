"""Episodes to rewards and returns: one rule a file, chosen by name; written beside a data set, never into it."""

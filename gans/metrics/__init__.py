"""What generated examples are worth: scores that say how they were computed."""

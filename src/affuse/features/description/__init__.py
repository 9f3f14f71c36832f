"""A clip in words: what the describers find in it, and the template that writes it down."""

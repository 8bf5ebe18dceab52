"""A step as a program: recorded from the book's loops, changed by passes, planned and compiled."""
